#!/usr/bin/env bash
# The main job on a real Kubernetes: helm install, two files applied, a verdict in the status.
# Usage: demo-kubernetes.sh FOLDER_OF_BINARIES. Brings the test cluster up and takes it down again (one that was up stays), or
# uses the cluster of $NETSPLIT_KUBECONFIG, which must be able to pull the images of $NETSPLIT_IMAGE_REGISTRY.
set -euo pipefail

bin=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
cluster=$root/e2e/cluster/cluster.sh
namespace=netsplit-demo-$$
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

if [ -n "${NETSPLIT_KUBECONFIG:-}" ]; then
    export KUBECONFIG=$NETSPLIT_KUBECONFIG
    : "${NETSPLIT_IMAGE_REGISTRY:?NETSPLIT_KUBECONFIG is set, so say where that cluster finds the images: registry.example/team}"
    images=(--set "image.registry=$NETSPLIT_IMAGE_REGISTRY" --set "image.tag=${NETSPLIT_IMAGE_TAG:-}")
else
    say "$root/e2e/cluster/images.sh" "$bin" "$bin/images"
    # It is held as long as this script's end of the pipe is open: also when the script is killed.
    echo "bringing the test cluster up"
    coproc held { "$cluster" hold "$bin/images/netsplit.tar" "$bin/images/netsplit-node.tar"; }
    holder=$held_PID
    while read -r -u "${held[0]}" line && [ "$line" != ready ]; do
        case $line in
        kubeconfig=*) export KUBECONFIG=${line#*=} ;;
        programs=*) export PATH=${line#*=}:$PATH ;;
        esac
    done
    [ -n "${KUBECONFIG:-}" ] || exit 1
    images=(--set image.registry=localhost --set image.tag=dev --set image.pullPolicy=Never)
fi

tidy() {
    kubectl --namespace "$namespace" delete experiments,testnets --all --ignore-not-found --timeout=60s >/dev/null 2>&1 || true
    helm --namespace "$namespace" uninstall netsplit >/dev/null 2>&1 || true
    kubectl delete namespace "$namespace" --ignore-not-found --timeout=60s >/dev/null 2>&1 || true
    if [ -n "${holder:-}" ]; then
        eval "exec ${held[1]}>&-"
        wait "$holder" || true
    fi
}
trap tidy EXIT

k() { say kubectl --namespace "$namespace" "$@"; }

kubectl create namespace "$namespace" >/dev/null
say helm --namespace "$namespace" install netsplit "$root/charts/netsplit" "${images[@]}" --wait --timeout 2m
cd "$root"
k apply -f examples/quickstart.yaml
k wait testnet/quickstart --for=condition=Ready --timeout=2m
k get testnets,pods
k apply -f examples/split-brain.yaml
k wait experiment/split-brain --for=condition=Complete --timeout=3m
k get experiments
k get experiment split-brain -o jsonpath='{.status.summary}'
verdict=$(kubectl --namespace "$namespace" get experiment split-brain -o jsonpath='{.status.phase}')
printf '\n%s\n' "${verdict^^}"
[ "$verdict" = Passed ]
