# tutti: SPDX-License-Identifier: Apache-2.0
#
#   make                  library, tools, benchmarks, examples, under build/
#   make check            all tests under Criterion, then the lint scripts
#   make check-sanitize   SAN=address,undefined (default) or SAN=thread
#   make check-long       the long forms; parts: unit conformance collective process matrix
#                         sanitize cuda-sanitize fuzz
#   make check-rdma       on soft-RoCE and soft-iWARP in an emulated machine; check-rdma-smoke: a minute of it
#   make check-gpu        on this machine's GPU: docs/gpu.md; bench-gpu: its figures
#   make fuzz             each fuzzer for FUZZ_SECONDS
#   make demo             a first run: what this machine is, and allreduce between two processes
#   make RELEASE=1        CUDA kernels for all kinds of devices; NVCC=: none, CUDA_SM='80 90': for these
#   make docs-settings    docs/settings.md from the table in src/env.c
#   make bench-peers      the same measurements for other libraries, where they are installed
#   make bench-rdma       our verbs transport beside perftest, and beside our TCP, in an emulated machine
#   make bench-plan       the planner's choice beside every forced algorithm
#   make install          PREFIX=/usr/local DESTDIR=

MAKEFLAGS += --no-builtin-rules
ifeq ($(origin CC),default)
CC := gcc
endif
AR ?= ar
B ?= build
PREFIX ?= /usr/local
SAN ?= address,undefined
FUZZ_SECONDS ?= 10
TEST_TIMEOUT ?= 300

part = $(shell sed -n 's/^\#define TUTTI_$(1) //p' include/tutti.h)
VERSION := $(call part,MAJOR).$(call part,MINOR).$(call part,PATCH)
SONAME := libtutti.so.$(call part,MAJOR)

# Quote-include paths: a plain -Isrc would let our sched.h hide the system's.
CPPFLAGS += -D_GNU_SOURCE -Iinclude -iquote src -iquote transports
CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wno-unused-parameter \
	$(if $(WERROR),-Werror)
ALL_CFLAGS = -std=c17 $(WARN) $(CFLAGS) -fPIC -fno-semantic-interposition -ffp-contract=off -pthread \
	$(if $(SAN_FLAGS),-fsanitize=$(SAN_FLAGS) -fno-omit-frame-pointer -fno-sanitize-recover=all)
ALL_LDFLAGS = -pthread $(LDFLAGS) $(if $(SAN_FLAGS),-fsanitize=$(SAN_FLAGS))
RPATH := -Wl,-rpath,'$$ORIGIN/../lib'

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-4s %s\n' $(1) $(patsubst $(B)/%,%,$@);)

# ---- the library. The reduction kernels are compiled once for each instruction set.
ISAS_x86_64 := sse2 avx2 avx512
MACHINE := $(shell $(CC) -dumpmachine | cut -d- -f1)
ISAS := $(or $(ISAS_$(MACHINE)),generic)
ISA_avx2 := -mavx2 -mf16c
ISA_avx512 := -mavx2 -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512

# Kernels for CUDA devices, where nvcc is: machine code for some, from which the driver of another makes its own.
NVCC ?= $(or $(shell command -v nvcc 2> /dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA_SM ?= $(if $(RELEASE),75 80 89 90 100 120,75 90)
CUDA_PTX ?= $(if $(RELEASE),90,75)
FATBINS := $(if $(NVCC),$(B)/obj/src/cuda_kernels.fatbin $(B)/obj/src/dev_kernels.fatbin)
GPU_FATBIN := $(if $(NVCC),$(B)/obj/tools/gpu_kernels.fatbin)
NVCC_FLAGS := -std=c++17 -O3 -fmad=false -Isrc -Xptxas -v -Xfatbin=-compress-all \
	$(foreach n,$(CUDA_SM),-gencode arch=compute_$(n),code=sm_$(n)) \
	$(foreach n,$(CUDA_PTX),-gencode arch=compute_$(n),code=compute_$(n))

LIB_SRC := $(filter-out src/reduce_kernels.c,$(wildcard src/*.c transports/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/obj/%.o) \
	$(if $(wildcard src/reduce_kernels.c),$(ISAS:%=$(B)/obj/src/reduce_kernels_%.o))
SO := $(B)/lib/libtutti.so
A := $(B)/lib/libtutti.a

# ---- programs
name = $(subst _,-,$(notdir $(basename $(1))))
TOOLS := $(filter-out tools/info_% tools/gpu%,$(wildcard tools/*.c))
INFO_OBJ := $(patsubst %.c,$(B)/obj/%.o,$(wildcard tools/info_*.c))
GPU_OBJ := $(patsubst %,$(B)/obj/tools/%.o,gpu gpu_image)
PROBE_OBJ := $(patsubst %.c,$(B)/obj/%.o,$(wildcard tools/gpu_probe*.c)) $(GPU_OBJ)
PERF := $(filter-out benchmarks/perf_%,$(wildcard benchmarks/*.c))
PERF_OBJ := $(patsubst %.c,$(B)/obj/%.o,$(wildcard benchmarks/perf_*.c)) $(GPU_OBJ)
EXAMPLES := $(wildcard examples/*.c)
BINS := $(foreach t,$(TOOLS),$(B)/bin/$(call name,$(t))) $(PERF:benchmarks/%.c=$(B)/bin/%)
EXAMPLE_BINS := $(EXAMPLES:%.c=$(B)/%)
# These see internals, which the shared library does not export.
STATIC_BINS := $(patsubst %,$(B)/bin/%,tutti-info tutti-gpu-probe tutti-pair-probe link_perf topo_search plan_perf)

# ---- tests: one program for each file, linked with the static library
TEST_DIRS := unit conformance collective process cuda
HARNESS := $(B)/obj/tests/libharness.a
HARNESS_OBJ := $(patsubst %.c,$(B)/obj/%.o,$(filter-out %_main.c,$(wildcard tests/harness/*.c))) $(GPU_OBJ)
tests_in = $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/$(1)/*.c))
scripts_in = $(wildcard tests/$(1)/*.sh)
TESTS := $(foreach d,$(filter-out cuda,$(TEST_DIRS)),$(call tests_in,$(d)))
# These need a driver, and their scripts run them with one that is a fake.
FAKE_CUDA := $(B)/tests/cuda/libcuda.so.1 $(B)/tests/cuda/11/libcuda.so.1
CUDA_TESTS := $(filter-out $(B)/tests/cuda/fake_%,$(call tests_in,cuda)) \
	$(if $(shell command -v $(CXX) 2> /dev/null),$(B)/tests/cuda/kernels $(B)/tests/cuda/dev_kernels)
GPU_TESTS := $(B)/gpu/collective/random $(B)/gpu/collective/device $(B)/gpu/cuda/graphs $(B)/gpu/bits
SCRIPTS := $(foreach d,$(TEST_DIRS),$(call scripts_in,$(d)))
LINTS := $(wildcard tests/lint/*.sh)
MAIN ?= criterion
RUN = TEST_TIMEOUT=$(TEST_TIMEOUT) BUILD=$(abspath $(B)) tests/harness/run.sh

.PHONY: all lib tests check check-deps check-gpu check-long check-rdma check-rdma-smoke check-sanitize sanitized fuzz \
	demo docs-settings bench-gpu bench-peers bench-plan bench-rdma install clean cuda-images cuda-sanitized FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: lib $(BINS) $(EXAMPLE_BINS)
lib: $(SO) $(A)
tests: $(TESTS) $(FAKE_CUDA) $(CUDA_TESTS) $(GPU_TESTS)

# A change of compiler or flags rebuilds.
FLAGS := $(CC) $(CPPFLAGS) $(ALL_CFLAGS)
$(B)/flags: FORCE
	@mkdir -p $(@D); echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' > $@

$(B)/obj/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(OBJ_FLAGS) -MMD -MP -c $< -o $@

$(ISAS:%=$(B)/obj/src/reduce_kernels_%.o): $(B)/obj/src/reduce_kernels_%.o: src/reduce_kernels.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -O3 -fno-trapping-math -fno-math-errno -Wno-pass-failed $(ISA_$*) \
		-DTT_KERNELS=tt_kernels_$* -MMD -MP -c $< -o $@

$(B)/obj/tests/%.o $(B)/obj/benchmarks/%.o: OBJ_FLAGS := -iquote tests/harness -iquote benchmarks -iquote tools

$(B)/cuda_flags: FORCE
	@mkdir -p $(@D); echo '$(NVCC) $(if $(NVCC),$(NVCC_FLAGS))' | cmp -s - $@ || \
		echo '$(NVCC) $(if $(NVCC),$(NVCC_FLAGS))' > $@
# What ptxas says of registers and spills is kept for tests/cuda/kernels.sh.
# Those of tools and benchmarks are none of the library's.
$(B)/obj/src/cuda_kernels.fatbin: src/cuda_kernels.h src/mem_piece.h
$(B)/obj/src/dev_kernels.fatbin: src/dev_run.h src/dev_proto.h
$(B)/obj/src/cuda_kernels.fatbin $(B)/obj/src/dev_kernels.fatbin: src/cuda_types.cuh src/reduce_convert.h
$(B)/obj/tools/gpu_kernels.fatbin: tools/gpu_kernels.h
$(B)/obj/%.fatbin: %.cu $(B)/cuda_flags
	@mkdir -p $(@D)
	$(call say,NVCC)$(NVCC) $(NVCC_FLAGS) --fatbin $< -o $@ > $(@:.fatbin=.report) 2>&1 || \
		{ cat $(@:.fatbin=.report); echo "make NVCC= builds without CUDA kernels"; exit 1; }
$(B)/obj/src/cuda_image.o: $(FATBINS) $(B)/cuda_flags
$(B)/obj/src/cuda_image.o: OBJ_FLAGS := $(if $(FATBINS),-DTT_CUDA_FATBIN='"$(word 1,$(FATBINS))"' \
	-DTT_DEV_FATBIN='"$(word 2,$(FATBINS))"')
$(B)/obj/tools/gpu_image.o: $(GPU_FATBIN) $(B)/cuda_flags
$(B)/obj/tools/gpu_image.o: OBJ_FLAGS := $(if $(GPU_FATBIN),-DTT_GPU_FATBIN='"$(GPU_FATBIN)"')

# Version script: tutti.h has no export attributes, the linker keeps everything else inside.
$(B)/lib/libtutti.map:
	@mkdir -p $(@D); echo '{ global: tutti*; local: *; };' > $@

$(B)/lib/$(SONAME): $(LIB_OBJ) $(B)/lib/libtutti.map
	$(call say,LD)$(CC) -shared -Wl,-z,nodelete -Wl,-soname,$(SONAME) -Wl,--version-script=$(B)/lib/libtutti.map \
		-Wl,-z,defs -Wl,-z,now -Wl,-z,relro -Wl,--as-needed $(ALL_LDFLAGS) $(LIB_OBJ) -o $@
$(SO): $(B)/lib/$(SONAME)
	$(Q)ln -sf $(SONAME) $@
$(A): $(LIB_OBJ)
	@mkdir -p $(@D); rm -f $@
	$(call say,AR)$(AR) rcs $@ $^

$(STATIC_BINS): LINK = $(A)
$(STATIC_BINS): $(A)
LINK = -L$(B)/lib -ltutti $(RPATH)

define program
$(1): $(2) $(SO)
	@mkdir -p $$(@D)
	$$(call say,LD)$$(CC) $$(ALL_LDFLAGS) $(2) $$(LINK) -lm -o $$@
endef
$(foreach t,$(TOOLS),$(eval $(call program,$(B)/bin/$(call name,$(t)),$(t:%.c=$(B)/obj/%.o) \
	$(if $(findstring info,$(t)),$(INFO_OBJ)) $(if $(findstring gpu_probe,$(t)),$(PROBE_OBJ)))))
$(foreach t,$(PERF),$(eval $(call program,$(t:benchmarks/%.c=$(B)/bin/%),$(t:%.c=$(B)/obj/%.o) \
	$(PERF_OBJ))))
$(foreach t,$(EXAMPLES),$(eval $(call program,$(B)/$(t:%.c=%),$(t:%.c=$(B)/obj/%.o))))

# A driver for tests, found by LD_LIBRARY_PATH: with the kernels of the host, and what it says of itself in the
# environment; the other one as before CUDA 12.
$(B)/tests/cuda/11/libcuda.so.1: FAKE_FLAGS := -DFAKE_CUDA_11
$(FAKE_CUDA): $(wildcard tests/cuda/fake_*.c) tests/cuda/fake_libcuda.h src/cuda_kernels.h src/mem_piece.h \
		tools/gpu_kernels.h src/dev_run.h src/dev_proto.h tests/harness/dev_host.h $(A)
	@mkdir -p $(@D); echo '{ global: cu*; local: *; };' > $(@D)/cu.map
	$(call say,LD)$(CC) $(CPPFLAGS) -iquote tools $(ALL_CFLAGS) $(FAKE_FLAGS) -shared -Wl,-soname,libcuda.so.1 \
		-Wl,--version-script=$(@D)/cu.map $(ALL_LDFLAGS) $(filter %.c,$^) $(A) -o $@

# The kernels once more, for the host: a thread after the other.
$(B)/tests/cuda/kernels: src/cuda_kernels.cu src/cuda_kernels.h src/mem_piece.h
$(B)/tests/cuda/dev_kernels: src/dev_kernels.cu src/dev_run.h src/dev_proto.h
$(B)/tests/cuda/kernels $(B)/tests/cuda/dev_kernels: $(B)/tests/cuda/%: tests/cuda/%.cpp src/cuda_types.cuh \
		src/reduce_convert.h $(A)
	@mkdir -p $(@D)
	$(call say,LD)$(CXX) -std=c++17 -O2 -g $(filter -W%,$(WARN:-W%-prototypes=)) -ffp-contract=off -Wno-unknown-pragmas \
		-Iinclude -iquote src -pthread $(LDFLAGS) $< $(A) -o $@

# For a real device, without Criterion, which is not everywhere: tests/gpu.
$(GPU_TESTS:%/bits=): $(B)/gpu/%: $(B)/obj/tests/%.o $(B)/obj/tests/harness/plain_main.o $(HARNESS) $(A)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $^ -lm -o $@
$(B)/gpu/bits: $(B)/obj/tests/gpu/bits.o $(GPU_OBJ) $(A)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $^ -lm -o $@

$(HARNESS): $(HARNESS_OBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(B)/tests/%: $(B)/obj/tests/%.o $(B)/obj/tests/harness/$(MAIN)_main.o $(HARNESS) $(A)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $^ -lm $(if $(filter criterion,$(MAIN)),-lcriterion) -o $@

# ---- checks
check-deps:
	@tools/setup.sh check
check: check-deps
	@$(MAKE) --no-print-directory all tests
	@CC='$(CC)' $(RUN) $(TESTS) $(SCRIPTS) $(LINTS)

# The threads of unit, conformance and collective tests in one process, small sizes; programs of many
# processes are left to `make check`. No Criterion: it crashes under ThreadSanitizer.
# One thread is all that schedules, their checker and the topology know: minutes of nothing for ThreadSanitizer.
SAN_TESTS ?= $(filter-out $(if $(findstring thread,$(SAN)),unit/sched unit/topo%),$(foreach d,unit conformance \
	collective,$(patsubst tests/%.c,%,$(wildcard tests/$(d)/*.c))))
check-sanitize:
	@$(MAKE) --no-print-directory B=$(B)/san-$(firstword $(subst $(comma), ,$(SAN))) \
		SAN_FLAGS=$(SAN) MAIN=plain NVCC= SAN_TESTS='$(SAN_TESTS)' sanitized
comma := ,
sanitized: $(SAN_TESTS:%=$(B)/tests/%)
	@TEST_QUICK=1 TEST_TIMEOUT_SCALE=5 TEST_SANITIZE=$(SAN_FLAGS) $(RUN) $^

LONG_PARTS := $(TEST_DIRS) matrix sanitize cuda-sanitize fuzz
check-long: $(LONG_PARTS:%=check-long-%)
$(TEST_DIRS:%=check-long-%): check-long-%: check-deps
	@$(MAKE) --no-print-directory all $(if $(findstring cuda,$*),$(FAKE_CUDA) $(CUDA_TESTS),$(call tests_in,$*))
	@TEST_LONG=1 TEST_TIMEOUT_SCALE=20 TEST_TIMEOUT=3600 BUILD=$(abspath $(B)) tests/harness/run.sh \
		$(filter $(TESTS),$(call tests_in,$*)) $(call scripts_in,$*)
check-long-matrix: all
	@BUILD=$(abspath $(B)) tests/matrix/allreduce.sh
check-long-sanitize:
	@$(MAKE) --no-print-directory check-sanitize SAN=address,undefined TEST_TIMEOUT=1800
	@$(MAKE) --no-print-directory check-sanitize SAN=thread TEST_TIMEOUT=1800
# Over the fake driver: device links between threads and processes, meetings, blocks. With the images of the build.
CUDA_SAN := thread address,undefined
check-long-cuda-sanitize: lib
	@bad=0; $(foreach s,$(CUDA_SAN),$(MAKE) --no-print-directory B=$(B)/cuda-$(firstword $(subst $(comma), ,$(s))) \
		IMAGES_FROM=$(B) SAN_FLAGS=$(s) MAIN=plain TEST_TIMEOUT=1800 cuda-sanitized || bad=1;) exit $$bad
cuda-images:
	@mkdir -p $(B)/obj/src && cp -p $(IMAGES_FROM)/cuda_flags $(B)
	@$(if $(FATBINS),cp -p $(IMAGES_FROM)/obj/src/*.fatbin $(IMAGES_FROM)/obj/src/*.report $(B)/obj/src)
cuda-sanitized: cuda-images
	@$(MAKE) --no-print-directory $(FAKE_CUDA) $(patsubst %,$(B)/tests/%,cuda/links cuda/peers cuda/driven \
		cuda/queues cuda/grid collective/meet collective/device collective/random) $(B)/bin/tutti-pair-probe
	@TEST_LONG= TEST_TIMEOUT_SCALE=5 TEST_SANITIZE=$(SAN_FLAGS) $(RUN) $(patsubst %,tests/cuda/%.sh,peers queues grid)
check-long-fuzz:
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=300

# ---- on a GPU
GPU_NEEDS := lib $(B)/bin/tutti-run $(B)/bin/tutti-gpu-probe $(B)/bin/all_reduce_perf $(B)/bin/gpu_copy_perf $(GPU_TESTS)
check-gpu: $(GPU_NEEDS)
	@BUILD=$(abspath $(B)) tests/gpu/check.sh
bench-gpu: $(GPU_NEEDS)
	@BUILD=$(abspath $(B)) tests/gpu/bench.sh

# ---- RDMA devices without hardware: docs/testing.md
VM_TESTS := $(filter-out tests/vm/faults.sh,$(wildcard tests/vm/*.sh))
VM_PROGRAMS := $(patsubst %.c,$(B)/%,$(wildcard tests/vm/*.c))
$(VM_PROGRAMS): $(B)/tests/vm/%: $(B)/obj/tests/vm/%.o $(A)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(ALL_LDFLAGS) $^ -lm -o $@
check-rdma-smoke: VM_TESTS := tests/vm/smoke.sh
check-rdma: TEST_TIMEOUT := 3600
check-rdma check-rdma-smoke: check-deps
ifeq ($(TEST_NO_RDMA),1)
	@echo "$@: skipped, as TEST_NO_RDMA is 1"
else
	@tests/vm/rdma-vm --setup
	@$(MAKE) --no-print-directory all $(patsubst %,$(B)/tests/%,conformance/conformance conformance/registered \
		conformance/queue_pair conformance/requests collective/random collective/sendrecv collective/memory \
		collective/device_rdma process/rdma) $(FAKE_CUDA) $(VM_PROGRAMS)
	@$(RUN) $(VM_TESTS)
endif

# ---- fuzzing: the static library once more, with coverage, and one program for each tests/fuzz/*.c
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c))
FUZZ_B := $(B)/fuzz
fuzz:
	@$(if $(FUZZERS),,echo "no fuzzers in tests/fuzz"; exit 0;) \
	command -v clang > /dev/null || tools/setup.sh fuzz && \
	$(MAKE) --no-print-directory CC=clang B=$(FUZZ_B) NVCC= SAN_FLAGS=fuzzer-no-link,address,undefined \
		$(FUZZERS:%=$(FUZZ_B)/fuzz/%) && \
	FUZZ_SECONDS=$(FUZZ_SECONDS) tests/harness/fuzz.sh $(FUZZERS:%=$(FUZZ_B)/fuzz/%)
$(B)/fuzz/%: $(B)/obj/tests/fuzz/%.o $(A)
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(LDFLAGS) -pthread -fsanitize=fuzzer,address,undefined $^ -lm -o $@

# ---- the rest
demo:
	@tools/setup.sh build
	@$(MAKE) --no-print-directory all
	$(B)/bin/tutti-info
	$(B)/bin/tutti-info --explain allreduce:8 --explain allreduce:16M
	$(B)/bin/tutti-run -n 2 $(B)/bin/all_reduce_perf -b 8 -e 16M -f 4 -n 20 -c 1

docs-settings: $(B)/bin/tutti-info
	$(B)/bin/tutti-info --settings-markdown > docs/settings.md

bench-rdma: all
	@tests/vm/rdma-vm --setup
	@BUILD=$(B) benchmarks/rdma.sh

bench-plan: all
	@BUILD=$(abspath $(B)) benchmarks/plan.sh

bench-peers: all
	@if [ -x benchmarks/peers/run.sh ]; then BUILD=$(abspath $(B)) benchmarks/peers/run.sh; \
	else echo "benchmarks/peers/run.sh is not here"; fi

D = $(DESTDIR)$(PREFIX)
define PC
prefix=$(PREFIX)
libdir=$${prefix}/lib
includedir=$${prefix}/include

Name: tutti
Description: collective communication
Version: $(VERSION)
Libs: -L$${libdir} -ltutti
Libs.private: -pthread
Cflags: -I$${includedir}
endef
export PC
install: all
	install -d $(D)/bin $(D)/include $(D)/lib/pkgconfig
	install -m 644 include/tutti.h $(D)/include/
	install -m 644 $(A) $(D)/lib/
	install -m 755 $(B)/lib/$(SONAME) $(D)/lib/libtutti.so.$(VERSION)
	ln -sf libtutti.so.$(VERSION) $(D)/lib/$(SONAME)
	ln -sf $(SONAME) $(D)/lib/libtutti.so
	printf '%s\n' "$$PC" > $(D)/lib/pkgconfig/tutti.pc
	$(if $(BINS),install -m 755 $(BINS) $(D)/bin/)

clean:
	rm -rf $(B)

-include $(shell find $(B)/obj -name '*.d' 2> /dev/null)
