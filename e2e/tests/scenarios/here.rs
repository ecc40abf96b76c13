//! This machine as a place of the scenarios that are the same everywhere.

use std::{net::SocketAddr, time::Duration};

use netsplit_e2e::{Kind, Lab, NodeStatus, programs};

use crate::everywhere::Place;

const MOMENT: Duration = Duration::from_secs(15);

pub struct Here {
    lab: Lab,
}

impl Here {
    pub fn new() -> Self {
        Self { lab: Lab::new() }
    }
}

impl Place for Here {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn moment(&self) -> Duration {
        MOMENT
    }

    fn process(&self, testnet: &str, node: &str) -> i32 {
        self.lab.status(testnet).node(node).pid
    }

    fn find_process(&self, _testnet: &str, node: &str) -> Option<i32> {
        let mut nodes = self.lab.processes_of(Kind::Node).into_iter();
        nodes.find(|process| process.node.as_deref() == Some(node)).map(|process| process.pid)
    }

    fn http(&self, node: &NodeStatus) -> SocketAddr {
        node.http.parse().unwrap_or_else(|_| panic!("{} is an address", node.http))
    }

    fn own_load_waits(&self, testnet: &str) -> bool {
        self.lab.status(testnet).load.is_none()
    }

    fn program(&self) -> String {
        programs().join("netsplit-node").display().to_string()
    }

    fn nothing_left(&self) {
        self.lab.assert_nothing_left();
    }
}
