#!/usr/bin/env bash
# Calls an API of Berth's for a while and says how it answered: by status, and how long the answers took.
#
# Usage: BERTH_TOKEN=... infra/load.sh URL [SECONDS [CALLERS [PATH]]]. It only reads: PATH is the status route where none
# is given. Calls that are throttled (429) are answers like others.
set -euo pipefail

url=${1:?"Usage: infra/load.sh URL [SECONDS [CALLERS [PATH]]]"}
seconds=${2:-60}
callers=${3:-10}
path=${4:-/api/snaptrade/status}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# The token stands in a file that only its owner may read, not in the list of processes.
umask 077
printf 'header = "Authorization: Bearer %s"\n' "${BERTH_TOKEN:-}" >"$folder/token"

call_until() {
    local end=$1 out=$2
    while ((SECONDS < end)); do
        curl --silent --output /dev/null --max-time 30 --config "$folder/token" \
            --write-out '%{http_code} %{time_total}\n' "$url$path" >>"$out" || true
    done
}

end=$((SECONDS + seconds))
for ((caller = 1; caller <= callers; caller++)); do
    call_until "$end" "$folder/$caller.txt" &
done
wait

cat "$folder"/*.txt | sort -k2 -n >"$folder/all"
awk -v seconds="$seconds" '
    { statuses[$1]++; times[NR] = $2 }
    END {
        if (NR == 0) { print "Nothing was answered."; exit 1 }
        printf "%d answers, %.1f a second\n", NR, NR / seconds
        for (status in statuses) printf "status %s: %d\n", status, statuses[status]
        printf "half within %.3f s, 99 in 100 within %.3f s, all within %.3f s\n",
            times[int((NR + 1) / 2)], times[int((NR * 99 + 99) / 100)], times[NR]
        # A status of 000 is a call without an answer.
        for (status in statuses) if (status == "000" || status >= 500) exit 1
    }' "$folder/all"
