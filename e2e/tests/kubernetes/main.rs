//! Scenarios on a real Kubernetes.

mod images;
mod test_cluster;
