# A thin front for CMake and the scripts below tools/.
BUILD  ?= build
PREFIX ?= /usr/local
JOBS   ?= $(shell nproc)
ONLY   ?=

MAKEFLAGS += --no-print-directory

.PHONY: all demo test check bench fuzz campaign soak-deploy format install clean help
.DEFAULT_GOAL := all

all: $(BUILD)/Makefile
	@cmake --build $(BUILD) --parallel $(JOBS)

$(BUILD)/Makefile:
	@for tool in cmake cc pkg-config; do command -v $$tool >/dev/null || \
	  { echo "$$tool is missing. Install what is needed:  tools/setup.sh build" >&2; exit 1; }; done
	@cmake -S . -B $(BUILD)

demo:
	@tools/demo.sh

test:
	@tools/test.sh '$(ONLY)'

check:
	@tools/setup.sh build run test
	@$(MAKE) all
	@cmake --build $(BUILD) --parallel $(JOBS) --target specs
	@tools/check.sh $(BUILD)

bench:
	@tools/setup.sh build run
	@$(MAKE) all
	@bench/run.sh --build $(BUILD) $(if $(ONLY),--only '$(ONLY)')

fuzz:
	@tools/setup.sh build test
	@tools/fuzz.sh 60 '$(ONLY)'

campaign:
	@tools/setup.sh build
	@$(MAKE) all
	@tools/campaign.sh --build $(BUILD) --jobs $(JOBS) $(if $(FIRST),--first $(FIRST)) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(ONLY),--only '$(ONLY)')

soak-deploy:
	@tools/setup.sh build test
	@$(MAKE) all
	@cmake --build $(BUILD) --parallel $(JOBS) --target spec-lua
	@MPREG_BUILD=$(BUILD) $(BUILD)/spec/spec-lua tools/soak_deploy.lua

format:
	@find src spec -name '*.[ch]' | xargs clang-format -i
	@luajit tools/rock.lua --write

install: all
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean:
	rm -rf build build-dev build-asan build-fuzz

help:
	@echo 'make                      build/mpreg'
	@echo 'make demo                 install what is missing, build, run the quake pipeline on three nodes'
	@echo 'make test [ONLY=REGEX]    all tests, or the units whose PART/NAME matches'
	@echo 'make check                the static checks alone'
	@echo 'make bench [ONLY=REGEX]   the benchmarks, beside the peers that are installed'
	@echo 'make fuzz [ONLY=REGEX]    a minute of fuzzing for each target'
	@echo 'make campaign             hours of simulated clusters: 100,000 fresh worlds and what is large or long'
	@echo '                          [FIRST=SEED] goes on from there, [SEEDS=N], [ONLY=REGEX] parts of it'
	@echo 'make soak-deploy         a minute of deploys to three busy nodes: a million calls, none may fail'
	@echo 'make install PREFIX=DIR   binary, Lua library, modules, docs, man pages, completion (DESTDIR is honoured)'
	@echo 'make format               clang-format on all C files; the list of modules in the rockspec'
	@echo 'make clean                remove the build folders'
