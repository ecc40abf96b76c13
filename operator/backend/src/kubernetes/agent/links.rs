//! The thread that owns the kernel's rules and the probes.

use std::{io, time::Duration};

use netsplit_links::{
    frame::{self, Assembly},
    pod::{self, PodAgent, Request, Response},
};
use tokio::{sync::oneshot, time::timeout};

use crate::local::{chain, rpc::Channel};

/// A thread that does not answer for so long hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Hands requests to the thread, one at a time.
#[derive(Debug)]
pub(super) struct Links {
    channel: Channel,
    assembly: Assembly,
}

#[derive(Debug)]
pub(super) enum StartError {
    /// The kernel or the container does not allow it; the sentence says what.
    Unable(String),
    Thread(io::Error),
}

impl Links {
    /// With why links can be cut but not shaped here, if that is so.
    pub(super) async fn start(options: pod::Options) -> Result<(Self, Option<String>), StartError> {
        let (ours, theirs) = frame::pair().map_err(StartError::Thread)?;
        let (opened, open) = oneshot::channel();
        let work = move || match PodAgent::open(options) {
            Ok(agent) => {
                drop(opened.send(Ok(agent.cannot_shape().map(str::to_owned))));
                // The other end sees the socket close.
                if let Err(error) = agent.run(&theirs) {
                    tracing::error!(error = chain(&error), "the link agent's thread ends");
                }
            }
            Err(error) => drop(opened.send(Err(chain(&error)))),
        };
        std::thread::Builder::new().name("links".to_owned()).spawn(work).map_err(StartError::Thread)?;
        let cannot_shape = match open.await {
            Ok(Ok(cannot_shape)) => cannot_shape,
            Ok(Err(why)) => return Err(StartError::Unable(why)),
            Err(_) => return Err(StartError::Unable("its thread ended at once".to_owned())),
        };
        let channel = Channel::new(ours).map_err(StartError::Thread)?;
        Ok((Self { channel, assembly: Assembly::default() }, cannot_shape))
    }

    /// Asks the thread; an error means that it is of no use any more.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Response, String> {
        let exchange = async {
            let bytes = frame::encode(request).map_err(|error| error.to_string())?;
            self.channel.send(&bytes, &[]).await.map_err(|error| error.to_string())?;
            let frame = self.channel.receive(&mut self.assembly).await.map_err(|error| error.to_string())?;
            let frame = frame.ok_or("it is gone")?;
            frame::decode(&frame.bytes).map_err(|error| error.to_string())
        };
        timeout(ANSWER_TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))
    }
}
