# Sourced by dist_train.sh and dist_test.sh: starts a tool in several processes through torchrun.
# NNODES, NODE_RANK, MASTER_ADDR and PORT are honoured; on one node a free port is taken.

usage() {
    echo "usage: $1" >&2
    exit 2
}

launch() { # launch PROCESSES TOOL ARGUMENT...
    local processes=$1
    shift
    [[ $processes =~ ^[1-9][0-9]*$ ]] || {
        echo "error: the number of processes must be a positive number, not '$processes'" >&2
        exit 2
    }
    # Mistakes end here, in one process and one line, before torchrun would wrap them into its own report.
    LOCAL_WORLD_SIZE=$processes "${PYTHON:-python}" "$@" --dry-run || exit $?

    local where=(--standalone)
    if [[ -n ${PORT:-} || ${NNODES:-1} -gt 1 ]]; then
        where=(--nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}"
            --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
    fi
    exec "${PYTHON:-python}" -m torch.distributed.run "${where[@]}" --nproc_per_node "$processes" "$@" --launcher pytorch
}
