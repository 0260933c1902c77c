# The guard of a local PostgreSQL: a shell that runs as the server's user in a session of its own, and does all
# work on the server, one command after another. Its input ends when the process that started it closes it or
# ends, for whatever reason: then the guard stops the server and removes its folder.
#
# usage: sh postgres_guard.sh BINARIES OPTIONS FOLDER...
#   BINARIES  where initdb and pg_ctl are, absolute or below the server's folder
#   OPTIONS   further options of the server, as a shell reads them; may be empty
#   FOLDER    where the server's folder may be made, the best first
# It prints the server's folder. Then it reads verbs (create, start, stop), one a line, and prints the exit status
# of each. Their output goes to the file `log` of the folder.

trap '' HUP TERM PIPE # only the end of its input ends the guard, also when its output is closed
umask 077

binaries=$1
more=$2
shift 2
for parent; do
    folder=$(mktemp -d "$parent/kiva-postgres.XXXXXX") && break
done
test -n "$folder" && cd "$folder" || exit 1
echo "$folder"

data=$folder/data
# The socket lies in the server's folder, which is closed to others; there is no port. Nothing is flushed to the
# disk: the data need not outlive the process. Commits stay synchronous, so that a crash of the server alone loses
# none of them. Shared memory lies in the folder too, since /dev/shm is tiny in containers.
options="-k .. -c listen_addresses= -c fsync=off -c full_page_writes=off -c dynamic_shared_memory_type=mmap $more"

while read -r verb; do
    case $verb in
        create)
            "$binaries/initdb" --pgdata="$data" --username=postgres --auth=trust \
                --encoding=UTF8 --no-locale --no-sync
            ;;
        start) "$binaries/pg_ctl" start --pgdata="$data" --silent --wait --log=log --options="$options" ;;
        stop) "$binaries/pg_ctl" stop --pgdata="$data" --silent --wait --mode=fast ;;
    esac </dev/null >>log 2>&1
    echo $?
done

"$binaries/pg_ctl" stop --pgdata="$data" --silent --wait --mode=immediate </dev/null >/dev/null 2>&1
cd /
# A second try, for a copy of the binaries that was still being written when the process ended.
rm -rf "$folder" || { sleep 1 && rm -rf "$folder"; }
