# `make` without a target lists the targets. A variable that is empty counts as not given.
override PYTHON := $(or $(PYTHON),python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

PHOTOS ?=
TYPE ?=
override MODELS := $(or $(MODELS),model_repository)
PROFILE ?=
PORT ?=
# A variable of these lists that is set becomes an option: DETECTOR_WEIGHTS=x becomes --detector-weights x. The programs
# hold the defaults.
EXPORT := DETECTOR DETECTOR_WEIGHTS ENCODER PRETRAINED CHECKPOINT ACTIVATION TOKENIZER PRECISION FORMAT THRESHOLD VERSION
CANARY := VERSION PROFILE PHOTOS TYPE MIN_OVERLAP
CALIBRATE := PHOTOS VERSION ABSENT MAX_FALSE
PORTS = --http-port "$(PORT)" --grpc-port "$$(($(PORT) + 1))" --metrics-port "$$(($(PORT) + 2))"
LOAD := TARGET METRICS RATE USERS DURATION SHAPE SLO MIX PHOTOS
lower = $(shell echo $(1) | tr A-Z_ a-z-)
options = $(strip $(foreach name,$(1),$(if $($(name)),--$(call lower,$(name)) "$($(name))")))
# STAGE=1 becomes --stage; STAGE=0 and STAGE=no do not.
flags = $(strip $(foreach name,$(1),$(if $(filter-out 0 no false,$($(name))),--$(call lower,$(name)))))
chosen_models = $(if $(filter-out model_repository,$(MODELS)),--models "$(MODELS)")
# $(call needs,VERSION,the version to serve: make rollback VERSION=1)
needs = @test -n "$(strip $($(1)))" || { echo "Name $(2)" >&2; exit 2; }

.DEFAULT_GOAL := help
.PHONY: help demo shop serve setup models engines calibrate check-repository canary rollback load loadgen tune train-mini
.PHONY: test test-all check audit clean gpu-check

help:
	@awk 'BEGIN {FS = ":.*## "} /^#: / {printf "\n%s\n", substr($$0, 4)} /^#  / {printf "%25s%s\n", "", substr($$0, 4)} \
	  /^#= / {split(substr($$0, 4), part, ": "); printf "  %-22s %s\n", part[1], part[2]} \
	  /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

#: Try it
demo: $(VENV)/.demo install-mini  ## Draw 300 photos, embed and search them, and write build/demo/index.html.
#  With your own photos: PHOTOS=folder, with a subfolder for each product type, or PHOTOS=photos.csv with the
#  columns path, type and, if known, label, or PHOTOS=folder TYPE="mug"
	$(BIN)/python -m benchmarks.demo $(if $(PHOTOS),--photos "$(PHOTOS)" $(if $(TYPE),--type "$(TYPE)"))

shop: $(VENV)/.shop install-mini  ## Index 600 drawn products, and serve search, similar items and a page on http://127.0.0.1:8080
#  With your own products: CATALOGUE=products.jsonl (or .csv, .parquet, or a folder of photos)
	@$(BIN)/python -m benchmarks.shop $(if $(CATALOGUE),--catalogue "$(CATALOGUE)")

serve: $(VENV)/.demo install-mini  ## Serve the models in MODELS until Ctrl-C. Choose a profile with PROFILE=name
#  PORT=9000 serves HTTP on 9000, gRPC on 9001 and metrics on 9002; without it, on 8000, 8001 and 8002
	@$(BIN)/python -m serving start --model-repository "$(MODELS)" $(if $(PROFILE),--profile "$(PROFILE)") $(if $(PORT),$(PORTS))

#: Export and deploy models
models: $(VENV)/.dev  ## Export models into MODELS and compare them with PyTorch. Without variables: the mini models.
#  For example DETECTOR=yolo-world-s ENCODER=ViT-B-32 PRETRAINED=laion2b_s34b_b79k VERSION=2
#  Also DETECTOR_WEIGHTS CHECKPOINT ACTIVATION TOKENIZER PRECISION FORMAT THRESHOLD (python -m export --help)
#  STAGE=1 exports the version without serving it. FORCE=1 overwrites a version; without VERSION, the next number is free
	@$(BIN)/python -m export --out "$(MODELS)" $(call options,$(EXPORT)) $(call flags,STAGE FORCE)

engines:  ## Like `models`, as TensorRT plans. Runs in the `engines` image, on the type of GPU that will serve
	@$(PYTHON) -m export --out "$(MODELS)" --format tensorrt $(call options,$(filter-out FORMAT,$(EXPORT))) $(call flags,STAGE FORCE)

calibrate: $(VENV)/.dev  ## Choose the detector's threshold from your photos, one subfolder for each product type: PHOTOS=folder
#  Also ABSENT="bicycle, piano" MAX_FALSE=0.05 VERSION STAGE=1 (python -m export calibrate --help)
	$(call needs,PHOTOS,the folder of your photos: make calibrate PHOTOS=folder)
	@$(BIN)/python -m export calibrate --out "$(MODELS)" $(call options,$(CALIBRATE)) $(call flags,STAGE FORCE)

check-repository: $(VENV)/.demo install-mini  ## Check that configs, profiles, pipelines and graphs of MODELS fit together
	@$(BIN)/python -m serving check --model-repository "$(MODELS)"

canary: $(VENV)/.demo  ## Compare version VERSION of MODELS with the served version, on drawn photos or PHOTOS=folder.
#  PROMOTE=1 serves it if it passes (python -m benchmarks.canary --help)
	$(call needs,VERSION,the version to compare: make canary VERSION=2)
	@$(BIN)/python -m benchmarks.canary --model-repository "$(MODELS)" $(call options,$(CANARY)) $(call flags,PROMOTE)

rollback: $(VENV)/.demo  ## Serve version VERSION of MODELS again. A running server switches without failed requests
	$(call needs,VERSION,the version to serve: make rollback VERSION=1)
	@$(BIN)/python -m export use --out "$(MODELS)" --version "$(VERSION)"

#: Measure
load: $(VENV)/.bench install-mini  ## Run a load test and write build/bench/report.html (3 min, with its own server).
#  A running server: TARGET=host:8001 RATE=40 (requests a second) DURATION=60 (seconds)
#  Also SHAPE=steps, spike, soak or overload, SLO="p99=50ms error-rate=0.1%" USERS MIX PHOTOS METRICS
#  (python -m benchmarks.load --help)
	@$(BIN)/python -m benchmarks.load $(call options,$(LOAD))

loadgen: $(VENV)/.bench install-mini  ## Run MLPerf LoadGen: SingleStream, Offline, Server, and a test for caching (2 min).
#  Also PHOTOS=folder TYPE="mug" TARGET=host:8001 RATE=20 LATENCY=250 (ms) FULL=1
	@$(BIN)/python -m benchmarks.loadgen $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(TYPE),--type "$(TYPE)") \
	  $(if $(TARGET),--url "$(TARGET)") $(if $(RATE),--rate $(RATE)) $(if $(LATENCY),--latency $(LATENCY)) $(call flags,FULL)

tune: $(VENV)/.bench install-mini  ## Search for a faster profile for this machine: SLO=p99=500ms MINUTES=10
#  The result is the profile `tuned`: make serve PROFILE=tuned
	@$(BIN)/python -m benchmarks.tune --model-repository "$(MODELS)" $(call options,SLO MINUTES)

#: Develop
setup: $(VENV)/.dev  ## Install everything into .venv
test: $(VENV)/.dev install-mini  ## Run ruff, mypy and the tests, with real servers (under 15 min)
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.dev install-mini  ## Run the slow tests too
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## Run ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy .

# If its service cannot be reached, pip-audit skips every package or writes no report.
AUDIT := build/audit.json
audit: $(VENV)/.demo  ## List known vulnerabilities of the installed packages. Warns and passes without a connection
	@test -d $(VENV)/audit || $(BIN)/python -m venv $(VENV)/audit
	@mkdir -p build && rm -f $(AUDIT)
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit && \
	  $(VENV)/audit/bin/python -m pip_audit --skip-editable --progress-spinner off --timeout 10 --format json --output $(AUDIT) \
	    $(foreach folder,$(wildcard $(VENV)/lib/python3*/site-packages) $(VENV)/tritonserver,--path $(folder)) 2> build/audit.log; \
	  status=$$?; if ! grep -qs '"vulns"' $(AUDIT); then \
	  echo "WARNING: nothing was audited: pip-audit could not look up any package (build/audit.log)" >&2; \
	  else cat build/audit.log; echo "Details: $(AUDIT)"; exit $$status; fi

gpu-check:  ## Check the GPU path on this machine and measure it (under 8 min): build/gpu/gpu.md. Installs nothing.
#  MODELS=folder takes exported models; without it, mini and base are exported. DEVICE=cpu checks the same on the CPU
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.gpu_check $(strip $(call options,DEVICE) $(chosen_models))

train-mini: $(VENV)/.dev  ## Draw the catalogue, train the mini models on it and export them to weights/mini (2 hours on 2 cores)
	$(BIN)/python -m training
	$(BIN)/python -m export pack-mini

clean:  ## Delete what was built, but not what was installed
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
	rm -rf model_repository/manifest*.json model_repository/.export-* model_repository/*/[2-9]* model_repository/*/1?*
	rm -f model_repository/*/1/model.onnx model_repository/*/1/model.plan model_repository/*/1/tokenizer.json

#: Variables, as in: make serve MODELS=my-models
#= MODELS=folder: The model repository to export to and to serve (model_repository)
#= PROFILE=name: A profile of serving/profiles, or a folder with one of your own
#= PORT=9000: The first of three ports to serve on: HTTP, then gRPC, then metrics
#= PHOTOS=folder: Your own JPEG, PNG or WebP files in place of drawn photos
#= CATALOGUE=products.jsonl: Your own products for the shop
#= TYPE="mug": The product type of the photos in PHOTOS
#= VERSION=2: The version number of an export (for a new one, the next free number)
#= PYTHON=python3.12: The interpreter for a new .venv (python3)

.PHONY: install-mini
install-mini: | $(VENV)/.demo
	@$(BIN)/python -m export.install --if-missing

$(VENV)/bin/python:
	@$(PYTHON) -c 'import platform, sys; v = sys.version_info[:2]; \
	  ok = (3, 10) <= v <= (3, 12) and sys.platform == "linux" and platform.machine() == "x86_64"; \
	  sys.exit(0 if ok else "Expected CPython 3.10 to 3.12 on x86-64 Linux, because the embedded Triton needs numpy 1; %s is Python %d.%d on %s %s. " \
	  "Choose another interpreter: make PYTHON=python3.12 …" % (sys.executable, *v, sys.platform, platform.machine()))'
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python has no venv module. Install it (Debian: apt install python3-venv)" >&2; exit 1; }

$(VENV)/.demo: pyproject.toml serving/pyproject.toml | $(VENV)/bin/python
	@echo "Installing what serving and the demo need (about a minute)"
	@$(PIP) --editable '.[demo]' --editable './serving[cpu]'
	@test -d $(VENV)/tritonserver/numpy || $(PIP) --upgrade --no-deps --target $(VENV)/tritonserver nvidia-pytriton==0.7.0 numpy==1.26.4
	@touch $@

$(VENV)/.shop: pyproject.toml | $(VENV)/.demo
	@echo "Installing the index and the gateway"
	@$(PIP) --editable '.[demo,search]'
	@touch $@

$(VENV)/.bench: pyproject.toml | $(VENV)/.demo
	@echo "Installing the load generators"
	@$(PIP) --editable '.[bench]'
	@touch $@

$(VENV)/.dev: pyproject.toml serving/pyproject.toml | $(VENV)/.demo
	@echo "Installing PyTorch, the exporters and the test tools (several minutes and gigabytes)"
	@$(PIP) --editable '.[dev]' --editable './serving[cpu,agent]'
	@# ultralytics installs opencv-python, which needs a desktop's libraries and overwrites opencv-python-headless.
	@$(PIP) --force-reinstall --no-deps opencv-python-headless
	@touch $@
