# SPDX-License-Identifier: Apache-2.0
# The verbs of this project.
#
# dist needs Python alone. deb, rpm and release build packages for amd64 and arm64 on Debian or Ubuntu (setup-packages).
#
# all, install and check build the product: they need a C compiler, PAM's headers, meson, ninja and Python 3.9 or later,
# and nothing else: no root, no network, no package manager. Every other verb works with real Slurm and sshd: it runs as
# root on Debian or Ubuntu, and first installs what it needs (setup), saying what.
#
# PREFIX, PYTHON (the interpreter that logins run on) and MESON_OPTIONS may be given at any time; a build directory
# remembers them.
SHELL := /bin/sh
DESTDIR ?=
BUILD ?= build
VENV := .venv
PY := $(VENV)/bin/python
PYTEST := PYTHONPATH=src:tools:. $(PY) -m pytest
RUN := PYTHONPATH=src:tools:. $(PY)
# the distribution's meson, else one that somebody has put into the project's own environment
export PATH := $(PATH):$(CURDIR)/$(VENV)/bin

.PHONY: all configure install check clean setup setup-bench setup-packages setup-fuzz setup-mutants test test-releases \
	test-vm test-packages test-matrix matrix lint demo demo-cluster conformance bench test-bench fuzz mutants dist \
	module-portable deb rpm release torture endurance

## make, make PREFIX=/usr/local PYTHON=/usr/bin/python3.11 MESON_OPTIONS="-Dselinux=enabled": build
all: configure
	@meson compile -C $(BUILD)

configure:
	@PREFIX="$(PREFIX)" PYTHON="$(PYTHON)" MESON_OPTIONS="$(MESON_OPTIONS)" tools/configure $(BUILD)

## make install DESTDIR= PREFIX=: never edits PAM
install: all
	@meson install -C $(BUILD) --no-rebuild $(if $(DESTDIR),--destdir "$(abspath $(DESTDIR))")

## make check: the tests that need no root, no Slurm and no network (meson test)
check: all
	@meson test -C $(BUILD) --print-errorlogs

clean:
	rm -rf $(BUILD) $(VENV) dist

# What the verbs below need: the host's tools, and the project's own Python environment
setup: $(VENV)/ready

$(VENV)/ready: tests/requirements.txt tools/setup-host
	@tools/setup-host
	@echo "setup: installing into $(VENV): $$(grep -o '^[^#=]*==[^ ]*' tests/requirements.txt | tr '\n' ' ')"
	@$(or $(PYTHON),/usr/bin/python3) -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check -r tests/requirements.txt
	@touch $@

setup-bench: $(VENV)/bench-ready

$(VENV)/bench-ready: bench/requirements.txt $(VENV)/ready
	@echo "setup: installing into $(VENV): $$(grep -o '^[^#=]*==[^ ]*' bench/requirements.txt | tr '\n' ' ')"
	@$(PY) -m pip install -q --disable-pip-version-check -r bench/requirements.txt
	@touch $@

setup-fuzz: $(VENV)/fuzz-ready

$(VENV)/fuzz-ready: fuzz/requirements.txt $(VENV)/ready
	@tools/setup-host clang
	@tools/setup-host "libclang-rt-$$(clang -dumpversion | cut -d. -f1)-dev"
	@echo "setup: installing into $(VENV): $$(grep -o '^[^#=]*==[^ ]*' fuzz/requirements.txt | tr '\n' ' ')"
	@$(PY) -m pip install -q --disable-pip-version-check -r fuzz/requirements.txt
	@touch $@

setup-mutants: $(VENV)/mutants-ready

$(VENV)/mutants-ready: tools/mutants-requirements.txt $(VENV)/ready
	@echo "setup: installing into $(VENV): $$(grep -o '^[^#=]*==[^ ]*' $< | tr '\n' ' ')"
	@$(PY) -m pip install -q --disable-pip-version-check -r $<
	@touch $@

## make test: everything that runs on one machine (lint, unit, wire, module, conformance, system), side by side
test: setup
	@$(PYTEST) -n auto --no-loadscope-reorder

## make test-releases: the tests that matter per release of Slurm and OpenSSH, on Debian 11, 13 and testing; Kerberos and X11
test-releases: setup
	@$(PYTEST) -m "releases or extra"

lint: setup
	@$(PYTEST) tests/lint

## make demo: an isolated node with real Slurm and sshd tells the story; KEEP=1 leaves it up
demo: setup
	@$(RUN) tools/demo.py $(if $(KEEP),--keep)

## make demo-cluster: logins from node to node, and the jobs they go to
demo-cluster: setup
	@$(RUN) tools/demo_cluster.py $(if $(KEEP),--keep)

## make conformance: our module and Debian's C module side by side
conformance: setup
	@$(RUN) -m tests.conformance

## make test-vm: a virtual machine with systemd, cgroup v2 and SELinux (some ten minutes where KVM does not work)
test-vm: setup
	@$(PYTEST) tests/vm -m vm
	@$(PYTEST) tests/vm_selinux -m vm

## make matrix: every kind of login, with the original module and with ours, on the node and the virtual machine
matrix: setup
	@$(RUN) -m lab.matrix_targets

## make bench: time and memory against the C module; BENCH="storm --logins 50" for a part or other numbers
bench: setup-bench
	@$(RUN) -m bench $(BENCH)

## make test-bench: that the benchmark works, not how fast anything is
test-bench: setup-bench
	@$(PYTEST) tests/node/cli/test_bench.py -m ""

## make fuzz FUZZ_SECONDS=600: the module's and all decoders' invariants against changed bytes; FUZZ="--target stepd --seed 7"
FUZZ_SECONDS ?= 600
fuzz: setup-fuzz
	@PYTHONPATH=src:. $(PY) -m fuzz --seconds $(FUZZ_SECONDS) $(FUZZ)

## make mutants MUTANTS="policy stepd": small changes of the source that no test notices (an hour on two cores for all)
mutants: setup-mutants
	@$(PY) tools/mutants.py $(MUTANTS)

setup-packages: $(VENV)/packages-ready

$(VENV)/packages-ready: packaging/requirements.txt $(VENV)/ready
	@tools/setup-host packages
	@echo "setup: installing into $(VENV): $$(grep -o '^[^#=]*==[^ ]*' packaging/requirements.txt | tr '\n' ' ')"
	@$(PY) -m pip install -q --disable-pip-version-check -r packaging/requirements.txt
	@touch $@

## make dist: the source tarball, in dist/
dist:
	@python3 tools/dist dist

## make module-portable: the module alone, for glibc 2.28 and later on amd64 and arm64, in build/portable
module-portable: setup-packages
	@$(foreach arch,amd64 arm64,ZIG="$(abspath $(PY)) -m ziglang" tools/stage $(arch) build/portable \
	  "$(CURDIR)/build/portable/$(arch)" && ls build/portable/$(arch)/usr/lib/slurm-adopt/pam_slurm_adopt.so &&) :

## make deb, make rpm: packages for amd64 and arm64, in dist/
deb rpm: setup-packages
	@$(PY) tools/packages $@

## make release KEY=: checks, then builds all that is published, with an SBOM and checksums; signed if a key is given
release: setup-packages
	@tools/release $(if $(KEY),--key "$(KEY)")

## make test-packages: packages built twice, checked, installed, upgraded and removed on four releases of Debian and with rpm
test-packages: setup-packages
	@$(PYTEST) tests/packages -m packages

## make test-matrix: one package file on Debian 11, 12, 13 and testing, each with its own Slurm; one table at the end
test-matrix: setup-packages
	@$(RUN) tools/test_matrix.py

## make torture HOURS=1 (or MINUTES=5, SEED=7): logins without an end while daemons, jobs and files fail; the report
HOURS ?= 1
MINUTES ?= $(shell expr $(HOURS) \* 60)
torture: setup
	@$(RUN) -m tests.torture --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

## make endurance LOGINS=100000 JOBS=1000 STEPS=10000: what service and node hold after so many; numbers and the index
LOGINS ?= 100000
JOBS ?= 1000
STEPS ?= 10000
endurance: setup
	@$(RUN) -m tests.torture.endurance --logins $(LOGINS) --jobs $(JOBS) --steps $(STEPS) $(if $(SEED),--seed $(SEED))
