#!/usr/bin/env bash
# The test command: format, lints, all Rust tests, then end-to-end tests with the real `openai` client.
# Needs a Rust toolchain and a C compiler; makes its own Python environment below target/. Prints what was skipped.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly target="${CARGO_TARGET_DIR:-target}"
readonly venv="$target/test-venv"
readonly log="$target/test-run.log"
mkdir -p "$target"
: >"$log"

say() { printf '\n== %s\n' "$*"; }

# Runs one step; its output is also kept in the log, where the skips are counted at the end.
step() {
    local name="$1" started=$SECONDS
    shift
    say "$name"
    "$@" 2>&1 | tee -a "$log"
    echo "-- $name: $((SECONDS - started)) s"
}

skip() { echo "SKIPPED: $*" | tee -a "$log"; }

# As root directly, otherwise through sudo when it asks for no password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Debian ships Python without the module that makes environments.
install_python() {
    command -v apt-get >/dev/null || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv
}

make_venv() {
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return 0
    rm -rf "$venv"
    python3 -m venv "$venv" >/dev/null 2>&1 && return 0
    rm -rf "$venv"
    install_python && python3 -m venv "$venv"
}

install_requirements() {
    cmp -s tests/requirements.txt "$venv/requirements.txt" && return 0
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt &&
        cp tests/requirements.txt "$venv/requirements.txt"
}

# Shows results, figures and skips; the whole output when something fails.
rust_tests() {
    local output="$target/rust-tests.log"
    if ! cargo test --workspace --no-fail-fast -- --show-output >"$output" 2>&1; then
        cat "$output"
        return 1
    fi
    grep -iE '^ +(Running|Doc-tests)|^test result|max \|Δlogit\||logits bit-identical|(^|\.\.\. )skipped( |:)' "$output"
}

if cargo fmt --version >/dev/null 2>&1; then
    step "format" cargo fmt --all --check
else
    skip "format: the toolchain has no rustfmt"
fi
if cargo clippy --version >/dev/null 2>&1; then
    step "lints" cargo clippy --workspace --all-targets --quiet -- -D warnings
else
    skip "lints: the toolchain has no clippy"
fi
step "Rust tests, build" cargo test --workspace --no-run
step "Rust tests" rust_tests
step "binary" cargo build --package runtime --bin memos

say "Python environment"
if ! make_venv; then
    skip "end-to-end tests: no Python virtual environment could be made"
elif ! install_requirements; then
    skip "end-to-end tests: the packages of tests/requirements.txt could not be installed"
else
    step "end-to-end tests" env MEMOS_BIN="$target/debug/memos" \
        "$venv/bin/python" -m pytest tests/e2e -q -rs --durations=5 --timeout 300 -p no:cacheprovider
fi

# Lines of ours and of pytest.
readonly skips='(^|\.\.\. )skipped( |:)'
skipped=$(grep -ciE "$skips" "$log" || true)
say "all passed in $SECONDS s; skipped: $skipped"
grep -iE "$skips" "$log" | sort | uniq -c || true
