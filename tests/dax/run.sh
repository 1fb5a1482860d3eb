#!/bin/bash
# The engine, and SQLite on it, on emulated persistent memory, through power cuts.
#
# Boots the distribution's kernel in QEMU with an NVDIMM, runs the test program (tests/src/bin/dax_guest) on a DAX file
# system there, kills QEMU with SIGKILL while it acknowledges work, boots again, and checks that all of it is there.
# The engine's tests of its media run on that file system, too, once for each persistence domain.
# QEMU models no CPU cache: this shows that MAP_SYNC, recovery and the persistence domain are handled on a real kernel; a
# missing flush is for the crash simulator to find.
#
# usage: tests/dax/run.sh        (root or sudo, for apt; artefacts go to target/dax)
# Prints findings and "N passed, M failed"; exits 0 if none failed. Without QEMU and without a way to install it, it
# fails if CI=true and says that it was skipped otherwise.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin # where mkfs and depmod are, which a user's PATH may not name
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
dir=$repo/target/dax
target=x86_64-unknown-linux-gnu
pmem=$dir/pmem.img
BOOT=10 # seconds within which the guest should be ready
SUITES=(medium_mapped medium_disk medium_full nvlite_engine:medium) # tests of the engine that run there; and a filter
passed=0
failed=0
qemu=
root=(env DEBIAN_FRONTEND=noninteractive)
if ((EUID != 0)); then root=(sudo -n "${root[@]}"); fi

# `[12 s] text`, seconds since the start.
say() { echo "[$SECONDS s] $*"; }

pass() { passed=$((passed + 1)); say "OK $*"; }

fail() { failed=$((failed + 1)); say "FAIL $*"; }

skip() {
    echo "skipped: $*"
    echo "0 passed, 0 failed"
    [[ ${CI:-} != true ]]
    exit
}

cleanup() { if [[ -n $qemu ]]; then kill -9 "$qemu" 2> /dev/null || true; fi; }
trap cleanup EXIT

install_tools() {
    local missing=() tool
    declare -A package=([qemu-system-x86_64]=qemu-system-x86 [busybox]=busybox-static [cpio]=cpio [depmod]=kmod
        [ndctl]=ndctl [mkfs.ext4]=e2fsprogs)
    for tool in "${!package[@]}"; do
        command -v "$tool" > /dev/null || missing+=("${package[$tool]}")
    done
    if ! apt-cache show linux-image-amd64 > /dev/null 2>&1 || ((${#missing[@]})); then
        "${root[@]}" apt-get update -qq || return
    fi
    if ((${#missing[@]})); then
        "${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" > "$dir/apt.log" 2>&1
    fi
}

# boot NAME FORMAT DOMAIN FINDINGS STEPS [WORKLOAD COUNT]: runs the steps to the end, or kills the machine once WORKLOAD
# has acknowledged COUNT times. Counts the guest's findings, of which there have to be FINDINGS: a step that dies says
# nothing. The serial log is $dir/NAME.log.
boot() {
    local name=$1 format=$2 domain=$3 findings=$4 steps=$5 workload=${6:-} count=${7:-0}
    local log=$dir/$1.log started=$SECONDS found=0 line ready whole
    : > "$log"
    qemu-system-x86_64 -machine "q35,accel=tcg,nvdimm=on,nvdimm-persistence=$domain" -cpu max \
        -m 512M,slots=2,maxmem=4G -object "memory-backend-file,id=mem0,share=on,mem-path=$pmem,size=512M" \
        -device nvdimm,id=nv0,memdev=mem0 -kernel "$dir/vmlinuz" -initrd "$dir/initrd" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check nv_format=$format nv=$steps" \
        -nodefaults -display none -no-reboot -net none -serial "file:$log" < /dev/null &
    qemu=$!
    while kill -0 "$qemu" 2> /dev/null; do
        if [[ -n $workload ]] && (($(grep -ac "^ACK $workload " "$log" || true) >= count)); then
            kill -9 "$qemu"
            break
        fi
        if ((SECONDS - started > 120)); then
            fail "boot $name: no end after 120 s; the last lines:"
            tail -n 5 "$log"
            kill -9 "$qemu"
            break
        fi
        sleep 0.1
    done
    wait "$qemu" 2> /dev/null || true
    qemu=
    while IFS= read -r line; do
        found=$((found + 1))
        case $line in
            OK\ *) pass "${line#OK }" ;;
            FAIL\ *) fail "${line#FAIL }" ;;
        esac
    done < <(tr -d '\r' < "$log" | grep -aE '^(OK|FAIL) ' || true)
    ((found == findings)) || fail "boot $name: $found findings instead of $findings"
    if [[ -n $workload ]]; then
        (($(acked "$name" "$workload") >= count)) || fail "boot $name: $workload stopped early"
    else
        grep -aq '^DONE' "$log" || fail "boot $name: did not reach its end"
    fi
    ready=$(sed -n 's/^READY //p' "$log" | tr -d '\r')
    say "boot $name: $((SECONDS - started)) s, ready after ${ready:-?} s"
    # told, not failed: how fast an emulated machine is says nothing about nvlite
    whole=${ready%%.*}
    if ((${whole:-0} >= BOOT)); then say "SLOW boot $name: the guest is expected to be ready within $BOOT s"; fi
}

# The last acknowledgement that was printed whole: the terminal ends a line with a carriage return.
acked() {
    sed -n "s/^ACK $2 \([0-9][0-9]*\)\( .*\)\?\r\$/\1/p" "$dir/$1.log" | tail -n 1 | grep . || echo 0
}

make_image() { "$here/image.sh" "$dir"; }

# static COMMAND...: cargo's, linked statically, as the guest has no libraries.
static() {
    (cd "$repo" && RUSTFLAGS='-C target-feature=+crt-static' CARGO_TARGET_DIR=$dir/cargo \
        cargo "$@" --quiet --release --locked --target "$target")
}

# What the guest runs, under names without a hash, in $dir/programs.
build_programs() {
    local path name
    rm -rf "$dir/programs"
    mkdir "$dir/programs"
    static build -p nvlite-tests --bin dax_guest
    cp "$dir/cargo/$target/release/dax_guest" "$dir/programs/"
    static test -p nvlite-engine --lib --test 'medium_*' --no-run --message-format=json > "$dir/tests.json"
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$dir/tests.json" | while read -r path; do
        name=$(basename "$path")
        cp "$path" "$dir/programs/${name%-*}"
    done
}

# The number of tests in $SUITES.
tests_in_suites() {
    local suite
    for suite in "${SUITES[@]}"; do # unquoted: the filter is a word of its own
        "$dir/programs/"${suite/:/ } --list 2> /dev/null | grep ': test$'
    done | wc -l
}

mkdir -p "$dir"
[[ $(uname -m) == x86_64 ]] || skip "the guest is x86_64, this machine is $(uname -m)"
install_tools || skip "cannot install QEMU and its tools; see $dir/apt.log"
say "tools"

build_programs
tests=$(tests_in_suites)
suites=$(printf ',test:%s' "${SUITES[@]}")
say "test programs"
status=0
make_image || status=$?
if ((status == 3)); then # the package lists may be out of date
    "${root[@]}" apt-get update -qq && status=0 && make_image || status=$?
fi
((status != 3)) || skip "cannot fetch the kernel"
((status == 0))
say "image"
rm -f "$pmem"
truncate -s 512M "$pmem"

boot medium yes mem-ctrl $((4 + tests)) "facts:memory_controller$suites,medium:run" medium 300
grep -aq '^PLATFORM persistence_domain=memory_controller' "$dir/medium.log" || fail "QEMU's persistence domain"
boot control no cpu $((5 + tests)) "facts:cpu_cache$suites,medium:verify:$(acked medium medium),control:run" control 300
boot store no mem-ctrl 1 "control:verify:$(acked control control),store:run" store 200
boot again no cpu 1 "store:verify:$(acked store store),store:run" store 700
boot sql no mem-ctrl 1 "store:verify:$(acked again store),sql:run" sql 300
boot end no cpu 1 "sql:verify:$(acked sql sql)"

echo "$passed passed, $failed failed"
((failed == 0))
