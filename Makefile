# `make` prints what can be done here. PYTHON chooses the interpreter for a new .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

PHOTOS ?=
TYPE ?=
MODELS ?= model_repository
PROFILE ?=
# What of these is set becomes an option of `python -m export`, which has the defaults: DETECTOR_WEIGHTS=… is
# --detector-weights ….
EXPORT := DETECTOR DETECTOR_WEIGHTS ENCODER PRETRAINED CHECKPOINT TOKENIZER PRECISION FORMAT THRESHOLD CANVAS VERSION
# Of these an option of `python -m benchmarks.canary`,
CANARY := VERSION PROFILE PHOTOS TYPE MIN_OVERLAP
# and of these one of `python -m benchmarks.load`.
LOAD := TARGET METRICS RATE USERS DURATION SHAPE SLO MIX PHOTOS
lower = $(shell echo $(1) | tr A-Z_ a-z-)
options = $(strip $(foreach name,$(1),$(if $($(name)),--$(call lower,$(name)) "$($(name))")))

.DEFAULT_GOAL := help
.PHONY: help demo serve setup models engines check-repository canary rollback load loadgen tune train-mini
.PHONY: test test-all check audit clean

help:  ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^#: / {printf "\n%s\n", substr($$0, 4)} /^#  / {printf "%25s%s\n", "", substr($$0, 4)} \
	  /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

#: Look at it
demo: $(VENV)/.demo install-mini  ## draw 300 photos, embed and search them, write build/demo/index.html; or PHOTOS=folder TYPE="mug"
	$(BIN)/python -m benchmarks.demo $(if $(PHOTOS),--photos "$(PHOTOS)" --type "$(TYPE)")

#: Run it
serve: $(VENV)/.demo install-mini  ## serve the models of MODELS (model_repository) in the foreground; PROFILE=name; Ctrl-C stops
	@$(BIN)/python -m serving start --model-repository "$(MODELS)" $(if $(PROFILE),--profile "$(PROFILE)")

models: $(VENV)/.dev  ## export into MODELS, verified against PyTorch: the mini models, or for example
#  DETECTOR=yolo-world-s ENCODER=ViT-B-32 PRETRAINED=laion2b_s34b_b79k VERSION=2, and also
#  DETECTOR_WEIGHTS CHECKPOINT TOKENIZER PRECISION FORMAT THRESHOLD CANVAS: see python -m export --help;
#  STAGE=1 does not serve it yet
	@$(BIN)/python -m export --out "$(MODELS)" $(call options,$(EXPORT)) $(if $(STAGE),--stage)

engines:  ## the same as TensorRT plans, on the GPU that will serve: inside deploy/Dockerfile's stage of this name
	@$(PYTHON) -m export --out "$(MODELS)" --format tensorrt $(call options,$(filter-out FORMAT,$(EXPORT))) $(if $(STAGE),--stage)

check-repository: $(VENV)/.demo install-mini  ## check configs, profiles, pipelines and graphs of MODELS against each other
	@$(BIN)/python -m serving check --model-repository "$(MODELS)"

canary: $(VENV)/.demo  ## compare VERSION of MODELS with the one that is served, on drawn photos or PHOTOS=folder TYPE="mug";
#  PROMOTE=1 serves it from then on, if nothing speaks against it; see python -m benchmarks.canary --help
	@$(BIN)/python -m benchmarks.canary --model-repository "$(MODELS)" $(call options,$(CANARY)) $(if $(PROMOTE),--promote)

rollback: $(VENV)/.demo  ## serve VERSION of MODELS again; a running server changes over without a break
	@$(BIN)/python -m export use --out "$(MODELS)" --version "$(VERSION)"

#: Measure it
load: $(VENV)/.bench install-mini  ## load a server of its own and write build/bench/report.html (under 3 min); or any server, with
#  TARGET=host:8001 RATE=40 and DURATION=60 USERS=8 SHAPE=spike SLO="p99=50ms error-rate=0.1%" MIX PHOTOS METRICS
	@$(BIN)/python -m benchmarks.load $(call options,$(LOAD))

loadgen: $(VENV)/.bench install-mini  ## MLPerf LoadGen: SingleStream, Offline, Server, and that nothing is cached (2 min); or
#  PHOTOS=folder TYPE="mug" TARGET=host:8001 RATE=20 LATENCY=250 FULL=1
	@$(BIN)/python -m benchmarks.loadgen $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(TYPE),--type "$(TYPE)") \
	  $(if $(TARGET),--url "$(TARGET)") $(if $(RATE),--rate $(RATE)) $(if $(LATENCY),--latency $(LATENCY)) $(if $(FULL),--full)

tune: $(VENV)/.bench install-mini  ## search the profile for this machine: serving/profiles/tuned; SLO=p99=500ms MINUTES=10
	@$(BIN)/python -m benchmarks.tune --model-repository "$(MODELS)" $(call options,SLO MINUTES)

#: Work on it
setup: $(VENV)/.dev  ## install everything into .venv
train-mini: $(VENV)/.dev  ## draw the catalogue, train the mini models on it, export them to weights/mini (about 90 min on 2 cores)
	$(BIN)/python -m training
	$(BIN)/python -m export pack-mini

test: $(VENV)/.dev install-mini  ## check the code and run the tests against a real server (under 15 min)
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.dev install-mini  ## the same and the slow tests
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy .

audit: $(VENV)/.demo  ## known vulnerabilities of what is installed; passes with a warning where pypi.org cannot be reached
	@test -d $(VENV)/audit || $(BIN)/python -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 10 pip-audit || echo "NOT AUDITED: pip-audit cannot be installed" >&2
	@! $(VENV)/audit/bin/python -c "import pip_audit" 2>/dev/null || \
	  $(VENV)/audit/bin/python -m pip_audit $(foreach folder,$(wildcard $(VENV)/lib/python3*/site-packages) $(VENV)/tritonserver,--path $(folder))

clean:  ## delete what was built, not what was installed
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
	rm -rf model_repository/manifest*.json model_repository/.export-* model_repository/*/[2-9]* model_repository/*/1?*
	rm -f model_repository/*/1/model.onnx model_repository/*/1/model.plan model_repository/*/1/tokenizer.json

.PHONY: install-mini
install-mini: | $(VENV)/.demo
	@$(BIN)/python -m export.install --if-missing --out "$(MODELS)"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import platform, sys; v = sys.version_info[:2]; \
	  ok = (3, 10) <= v <= (3, 12) and sys.platform == "linux" and platform.machine() == "x86_64"; \
	  sys.exit(0 if ok else "This needs CPython 3.10 to 3.12 on x86-64 Linux (the embedded Triton speaks to Python through numpy 1), and %s is Python %d.%d on %s %s. " \
	  "Choose another with: make PYTHON=python3.12 …" % (sys.executable, *v, sys.platform, platform.machine()))'
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "No venv module: install it (Debian: apt install python3-venv)" >&2; exit 1; }

$(VENV)/.demo: pyproject.toml serving/pyproject.toml | $(VENV)/bin/python
	@echo "Installing what serving and the demo need (about a minute)"
	@$(PIP) --editable '.[demo]' --editable './serving[cpu]'
	@test -d $(VENV)/tritonserver/numpy || $(PIP) --upgrade --no-deps --target $(VENV)/tritonserver nvidia-pytriton==0.7.0 numpy==1.26.4
	@touch $@

$(VENV)/.bench: pyproject.toml | $(VENV)/.demo
	@echo "Installing the load generators"
	@$(PIP) --editable '.[bench]'
	@touch $@

$(VENV)/.dev: pyproject.toml serving/pyproject.toml | $(VENV)/.demo
	@echo "Installing PyTorch, the exporters and the test tools (some minutes and gigabytes)"
	@$(PIP) --editable '.[dev]' --editable './serving[cpu,agent]'
	@# ultralytics brings the OpenCV that needs a desktop's libraries and lays it over the one that does not.
	@$(PIP) --force-reinstall --no-deps opencv-python-headless
	@touch $@
