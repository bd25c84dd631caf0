"""Files of Keras's models: looked through before they are loaded, because their configuration can hold code.

Keras's own safe mode has been got round more than once: what a configuration names must be a class of Keras here, and
nothing that keeps Python as text or bytecode. Files of Keras 2 are loaded by Keras 2.
"""

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from act.errors import InputError
from act.formats._tensorflow import HDF5_SIGNATURE, KERAS_CONFIG

_METADATA, _WEIGHTS = "metadata.json", "model.weights.h5"
_LARGEST_TEXT = 64 * 2**20
# Of an archive, whose weights are hardly compressed: bytes of content for each of the file.
_MOST_EXPANDED = 20
# Layers that hold Python, or load files of their own.
_CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer")
_MODULES = re.compile(
    r"(builtins|(keras|tf_keras)(\.src)?(\.(layers|models|engine|activations|initializers|regularizers|constraints|"
    r"dtype_policies|mixed_precision|ops)(\.\w+)*)?)"
)


def load_model(path: Path) -> Any:
    """Load a model of Keras 2 or 3 without its optimizer.

    Raises:
        InputError: the file is damaged, holds weights only, or something that is never run.
    """
    with path.open("rb") as file:
        is_hdf5 = file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
    config, version = _read_hdf5(path) if is_hdf5 else _read_archive(path)
    _refuse_code(config)
    if version.startswith("1."):
        raise InputError(f"is of Keras {version}; load it in Keras 2 and save it again")
    # By its ending Keras tells the two forms.
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / ("model.h5" if is_hdf5 else "model.keras")
        named.symlink_to(path)
        if version.startswith("3."):
            import keras

            return keras.saving.load_model(named, compile=False, safe_mode=True)
        import tf_keras

        return tf_keras.models.load_model(named, compile=False, safe_mode=True)


def _read_hdf5(path: Path) -> tuple[Any, str]:
    """Return the configuration of a model in an HDF5 file, and the version of Keras that wrote it."""
    try:
        with h5py.File(path, "r") as file:
            _refuse_links(file)
            config, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "2")
    except OSError as error:
        raise InputError(f"is no HDF5 file, or damaged ({error}); save it again") from None
    if config is None:
        raise InputError(
            "holds weights without the model that they belong to; load them into it in Keras and save that whole: "
            "`model.save('model.keras')`"
        )
    return _parsed(config), _text(version)


def _read_archive(path: Path) -> tuple[Any, str]:
    """Return the configuration of a model in a `.keras` archive, and the version of Keras that wrote it."""
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            size = sum(each.file_size for each in archive.infolist())
            if size > max(_LARGEST_TEXT, _MOST_EXPANDED * path.stat().st_size):
                raise InputError(f"unpacks to {size} bytes from {path.stat().st_size}, as no model does; save it again")
            names = archive.namelist()
            missing = [name for name in (KERAS_CONFIG, _METADATA, _WEIGHTS) if name not in names]
            if missing:
                raise InputError(f"has no `{missing[0]}` in it; save it again")
            texts = [_read(archive, name) for name in (KERAS_CONFIG, _METADATA)]
            weights = archive.extract(_WEIGHTS, folder)
            with h5py.File(weights, "r") as file:
                _refuse_links(file)
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise InputError(f"is no archive of a model, or damaged ({error}); save it again") from None
    config, metadata = map(_parsed, texts)
    return config, str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        text = file.read(_LARGEST_TEXT + 1)
    if len(text) > _LARGEST_TEXT:
        raise InputError(f"holds a `{name}` of more than {_LARGEST_TEXT} bytes, as no model does; save it again")
    return text


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _parsed(text: Any) -> Any:
    try:
        return json.loads(_text(text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"holds a configuration that cannot be read ({error}); save it again") from None


def _refuse_links(root: Any) -> None:
    """Refuse what takes values from other files: external links, external storage, virtual datasets."""
    seen, ahead = set(), [root]
    while ahead:
        group = ahead.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise InputError(f"takes `{group.name}/{name}` from another file ({link.filename}); save it whole")
            item = group.get(name)
            if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                raise InputError(f"takes `{item.name}` from another file; save it whole")
            if isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address not in seen:
                    seen.add(address)
                    ahead.append(item)


def _refuse_code(config: Any) -> None:
    """Refuse a configuration that names anything but Keras's own classes."""
    for entry in _dictionaries(config):
        name, module = entry.get("class_name"), entry.get("module")
        if name in _CODE:
            raise InputError(
                f"has a layer `{name}`, which holds Python code that is never run; make it of Keras's own layers, or "
                "export the model as a SavedModel"
            )
        if name is not None and module is not None and not _MODULES.fullmatch(str(module)):
            raise InputError(
                f"needs the class `{name}` of `{module}`, whose code is not in the file; export the model as a "
                "SavedModel"
            )


def _dictionaries(config: Any) -> Iterator[dict[str, Any]]:
    ahead = [config]
    while ahead:
        value = ahead.pop()
        if isinstance(value, dict):
            yield value
            ahead += value.values()
        elif isinstance(value, list):
            ahead += value
