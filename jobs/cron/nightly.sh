#!/usr/bin/env bash
# One night of tagging: a result named by its date, built on the last good one.
#
#   TAGGER_MANIFEST=/feeds/catalogue.csv TAGGER_RESULTS=/srv/tags jobs/cron/nightly.sh [OPTION OF tagger run]...
#
# Silent when all is well, so that cron mails failures only. Leaves with the exit code of `tagger run`; 4 also where
# an earlier night is still at work. The settings are in jobs/README.md.
set -euo pipefail
export LC_ALL=C.UTF-8

say() { printf '%s nightly.sh: %s\n' "$(date +%FT%T%z)" "$*"; }

refuse() {
    say "$2" >&2
    exit "$1"
}

is_night() { [[ $1 =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}[A-Za-z0-9]*$ ]]; }

# Names of the results that `$1` holds ('good': with _SUCCESS, 'all': every one), newest first.
nights() {
    local out
    for out in "$results"/????-??-??*; do
        is_night "${out##*/}" || continue
        if [[ $1 == all || -e $out/_SUCCESS ]]; then printf '%s\n' "${out##*/}"; fi
    done | sort -r
}

[[ -n ${TAGGER_MANIFEST:-} ]] || refuse 2 "set TAGGER_MANIFEST to the feed; {date} in it becomes the night's date"
[[ -n ${TAGGER_RESULTS:-} ]] || refuse 2 "set TAGGER_RESULTS to the folder of the dated results"
[[ $TAGGER_RESULTS != *://* ]] || refuse 2 "TAGGER_RESULTS $TAGGER_RESULTS: a folder on this machine's disk"
night=${TAGGER_DATE:-$(date +%F)}
is_night "$night" || refuse 2 "TAGGER_DATE $night: a date such as 2026-01-31"
keep=${TAGGER_KEEP_NIGHTS:-14}
[[ $keep =~ ^[0-9]{1,9}$ ]] || refuse 2 "TAGGER_KEEP_NIGHTS $keep: a number of nights; 0 keeps all"
keep=$((10#$keep)) # 010 is ten, not eight
mkdir -p "$TAGGER_RESULTS/logs" 2>/dev/null || refuse 2 "cannot write to TAGGER_RESULTS $TAGGER_RESULTS"
results=$(cd "$TAGGER_RESULTS" && pwd)
manifest=${TAGGER_MANIFEST//\{date\}/$night}
out=$results/$night
log=$results/logs/$night.log

# The run inherits the lock: should this script be killed, the next night still waits for the run's end.
exec 9>>"$results/.nightly.lock"
flock -n 9 || refuse 4 "an earlier night is still at work in $results"

# A night that has begun goes on with the result it began with, whatever has been finished since.
if [[ -e $out/run.json ]]; then
    previous=$(sed -n 's|^ *"previous_out": "\(.*\)",\{0,1\}$|\1|p' "$out/run.json")
else
    previous=$(nights good | awk -v night="$night" '$0 < night && !found++')
    previous=${previous:+$results/$previous}
fi

command=("${TAGGER_BIN:-tagger}" run "$manifest" --out "$out" --decisions "${TAGGER_DECISIONS:-$results/decisions}")
[[ -z $previous ]] || command+=(--reuse "$previous")
[[ -z ${TAGGER_BUNDLE:-} ]] || command+=(--bundle "$TAGGER_BUNDLE")
[[ -z ${TAGGER_MIN_ROWS:-} ]] || command+=(--min-rows "$TAGGER_MIN_ROWS")
[[ -z ${TAGGER_MAX_FAILED:-} ]] || command+=(--max-failed "$TAGGER_MAX_FAILED")
[[ -z ${TAGGER_MAX_CHURN:-} ]] || command+=(--max-churn "$TAGGER_MAX_CHURN")
command+=("$@")

say "${command[*]@Q}" >>"$log"
run='' signals=0
trap 'signals=$((signals + 1)); [[ -z $run ]] || kill -TERM "$run" 2>/dev/null || true' TERM INT
"${command[@]}" >>"$log" 2>&1 &
run=$!
((signals == 0)) || kill -TERM "$run" 2>/dev/null || true # it came between the start and the line before
waited=-1
until ((waited == signals)); do # a signal ends the wait, not the run: it keeps its work and then leaves
    waited=$signals code=0
    wait "$run" || code=$?
done
say "exit $code" >>"$log"
if ((code != 0)); then
    say "exit $code; the end of $log:" >&2
    tail -n 5 "$log" >&2
    exit "$code"
fi

mapfile -t good < <(nights good)
ln -s "${good[0]}" "$results/.latest.$$"
mv -T "$results/.latest.$$" "$results/latest" # a rename: a reader sees the old result or the new one

rm -rf "$results"/.removing-*
if ((keep > 0 && ${#good[@]} > keep)); then
    oldest=${good[keep - 1]}
    while read -r name; do
        [[ $name < $oldest && $name != "$night" ]] || continue # a night just asked for again stays
        mv "$results/$name" "$results/.removing-$name" # first out of sight, so that no one reads half a result
        rm -rf "$results/.removing-$name" "$results/logs/$name.log"
    done < <(nights all)
fi
