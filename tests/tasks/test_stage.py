"""What every stage's entry does: settings in, messages out."""

from __future__ import annotations

import io
import logging

import pytest

from tasks.stage import log_to_stdout


def test_a_message_comes_out_alone_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever handler a library has put on the root logger."""
    elsewhere = io.StringIO()
    handler = logging.StreamHandler(elsewhere)
    logging.getLogger().addHandler(handler)
    try:
        with log_to_stdout(logging.INFO):
            logging.getLogger("act.quantization").info("told")
            logging.getLogger("act.quantization").debug("not asked for")
        logging.getLogger("act.quantization").warning("afterwards")
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().out == "told\n"
    assert elsewhere.getvalue() == "afterwards\n"
