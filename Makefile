# SPDX-License-Identifier: Apache-2.0
# The verbs of this project. Each does its own set-up.
SHELL := /bin/bash
PREFIX ?= /usr
DESTDIR ?=
BUILD ?= build
PYTHON ?= /usr/bin/python3
VENV := .venv
PY := $(VENV)/bin/python
export PYTHONPATH := src:tools:.

.PHONY: all setup test test-releases test-vm matrix lint demo demo-cluster conformance bench test-bench install clean

all: $(BUILD)/build.ninja
	@meson compile -C $(BUILD)

$(BUILD)/build.ninja: | setup
	@meson setup $(BUILD) --prefix=$(PREFIX) $(MESON_OPTIONS) >/dev/null

setup: $(VENV)/ready

# the host's build tools, and the project's own Python environment
$(VENV)/ready: tests/requirements.txt tools/setup-host
	@tools/setup-host
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check -r tests/requirements.txt
	@touch $@

## make test: everything that runs on one machine (lint, unit, wire, module, conformance, system)
test: setup
	@$(PY) -m pytest

## make test-releases: the tests that matter per release of Slurm and OpenSSH, on Debian 11, 13 and testing; Kerberos and X11
test-releases: setup
	@$(PY) -m pytest -m "releases or extra"

lint: setup
	@$(PY) -m pytest tests/lint

## make demo: an isolated node with real Slurm and sshd tells the story; KEEP=1 leaves it up
demo: setup
	@$(PY) tools/demo.py $(if $(KEEP),--keep)

## make demo-cluster: logins from node to node, and the jobs they go to
demo-cluster: setup
	@$(PY) tools/demo_cluster.py $(if $(KEEP),--keep)

## make conformance: our module and Debian's C module side by side
conformance: setup
	@$(PY) -m tests.conformance

## make test-vm: a virtual machine with systemd, cgroup v2 and SELinux (some ten minutes where KVM does not work)
test-vm: setup
	@$(PY) -m pytest tests/vm -m vm
	@$(PY) -m pytest tests/vm_selinux -m vm

## make matrix: every kind of login, with the original module and with ours, on the node and the virtual machine
matrix: setup
	@$(PY) -m lab.matrix_targets

## make bench: time and memory against the C module; BENCH="storm --logins 50" for a part or other numbers
bench: setup $(VENV)/bench-ready
	@$(PY) -m bench $(BENCH)

## make test-bench: that the benchmark works, not how fast anything is
test-bench: setup $(VENV)/bench-ready
	@$(PY) -m pytest tests/system/test_bench.py -m ""

## make install DESTDIR= PREFIX=: never edits PAM
install: all
	@meson install -C $(BUILD) --no-rebuild $(if $(DESTDIR),--destdir "$(abspath $(DESTDIR))")

$(VENV)/bench-ready: bench/requirements.txt | setup
	@$(PY) -m pip install -q --disable-pip-version-check -r bench/requirements.txt
	@touch $@

clean:
	rm -rf $(BUILD) $(VENV)
