# `make demo` and `make test` do all their own set-up; `make help` lists the rest.
.POSIX:
.PHONY: help setup demo test test-fast lint lock peers exports zoo lite tensorflow pytorch paddle3 clean

PY = .venv/bin/python
# The flow and DVC call nobody, and `python` in dvc.yaml is the environment's.
ENV = PATH="$$PWD/.venv/bin:$$PATH" DVC_NO_ANALYTICS=1 DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false \
	PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY=false
CODE = act tasks flows tests benchmarks

help:
	@echo "make demo       compress the demo model and print where the report is"
	@echo "make test       run all tests"
	@echo "make test-fast  run the tests of single rooms, in a minute"
	@echo "make lint       ruff and mypy"
	@echo "make lock       renew the locks from pyproject.toml"
	@echo "make peers      install what benchmarks/ compares with"
	@echo "make exports    write models of PyTorch, in an environment of its own of 6 GB, for benchmarks.formats"
	@echo "make zoo        write models of PaddleClas, PaddleSeg, PaddleDetection and PaddleNLP, for benchmarks.paddle_zoo"
	@echo "make lite       make Paddle Lite's environment; needs a CPython 3.10 (LITE_PYTHON names it)"
	@echo "make tensorflow  make the environment for TensorFlow's, Keras's and TFLite's models (TENSORFLOW_PYTHON names a CPython)"
	@echo "make pytorch    make the environment that reads PyTorch's .pt2 and TorchScript (PYTORCH_PYTHON names a CPython)"
	@echo "make paddle3    make the environment in which models of Paddle 3 run as they are"
	@echo "make clean      remove the environments, the artefacts, DVC's cache and what benchmarks/ trained"

setup:
	@PYTHON="$(PYTHON)" ./setup.sh

demo: setup
	@$(ENV) $(PY) -m flows.compress --job recogniser

# One thread each, for two run side by side.
PYTEST = $(ENV) OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup
	@$(PYTEST) tests

test-fast: setup
	@$(PYTEST) -m unit tests

lint: setup
	@$(PY) -m ruff check $(CODE)
	@$(PY) -m ruff format --check $(CODE)
	@$(PY) -m mypy $(CODE)

# --no-emit-index-url: the lock names no registry.
lock: setup
	@$(PY) -m uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --no-python-downloads \
		--upgrade --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements.lock
	@$(PY) -m uv pip compile --group peers --universal --python-version 3.11 --no-python-downloads --upgrade \
		--constraints requirements.lock --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet \
		-o requirements-peers.lock
	@$(PY) -m uv pip compile --group lite --universal --python-version 3.10 --no-python-downloads --upgrade \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements-lite.lock
	@$(PY) -m uv pip compile --group tensorflow --universal --python-version 3.10 --no-python-downloads --upgrade \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements-tensorflow.lock
	@$(PY) -m uv pip compile --group pytorch --universal --python-version 3.10 --no-python-downloads --upgrade \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements-pytorch.lock
	@$(PY) -m uv pip compile --group exports --universal --python-version 3.10 --no-python-downloads --upgrade \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements-exports.lock
	@$(PY) -m uv pip compile --group paddle3 --universal --python-version 3.10 --no-python-downloads --upgrade \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements-paddle3.lock
	@$(PY) -m uv pip compile --group zoo --no-deps --universal --python-version 3.10 --no-python-downloads --upgrade \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements-zoo.lock

peers: setup
	@$(PY) -m pip install --no-deps --require-hashes --no-input --disable-pip-version-check --quiet \
		-r requirements-peers.lock

# Apart from .venv, because PyTorch wants another NumPy than Paddle.
exports: setup
	@$(PY) -m venv .venv-exports
	@.venv-exports/bin/python -m pip install --no-deps --require-hashes --no-input --disable-pip-version-check --quiet \
		-r requirements-exports.lock
	@.venv-exports/bin/python benchmarks/torch_exports.py benchmarks/cache/exports

# In a folder apart, which both Paddles read, because what the packages ask for fits neither. Each is written by both,
# with the same weights.
ZOO = benchmarks/cache/paddle_zoo
zoo: setup paddle3
	@$(PY) -m pip install --no-deps --require-hashes --no-input --disable-pip-version-check --quiet --upgrade \
		--target $(ZOO)/packages -r requirements-zoo.lock
	@PYTHONPATH=$(ZOO)/packages $(PY) benchmarks/paddle_zoo_exports.py $(ZOO)/paddle2
	@PYTHONPATH=$(ZOO)/packages $${ACT_PADDLE3_ENVIRONMENT:-.venv-paddle3}/bin/python benchmarks/paddle_zoo_exports.py \
		$(ZOO)/paddle3 --weights $(ZOO)/paddle2

# Apart from .venv, because Paddle Lite's wheels stop at CPython 3.10.
lite: setup
	@$(PY) -m act.environments lite $(if $(LITE_PYTHON),--python "$(LITE_PYTHON)")

# Apart from .venv, because TensorFlow wants another protobuf than Paddle.
tensorflow: setup
	@$(PY) -m act.environments tensorflow $(if $(TENSORFLOW_PYTHON),--python "$(TENSORFLOW_PYTHON)")

# Apart from .venv, because PyTorch wants another NumPy than Paddle.
pytorch: setup
	@$(PY) -m act.environments pytorch $(if $(PYTORCH_PYTHON),--python "$(PYTORCH_PYTHON)")

# Apart from .venv, which holds Paddle 2.6.
paddle3: setup
	@$(PY) -m act.environments paddle3 $(if $(PADDLE3_PYTHON),--python "$(PADDLE3_PYTHON)")

clean:
	rm -rf .venv .venv-lite .venv-tensorflow .venv-pytorch .venv-paddle3 .venv-exports .prefect artifacts deploy benchmarks/cache .dvc/cache .dvc/tmp .mypy_cache .pytest_cache .hypothesis .ruff_cache
