use tokio::net::UnixListener;

use super::*;

const LEASE: Duration = Duration::from_secs(30);

fn version(sequence: u64) -> Version {
    Version { term: 1, sequence }
}

fn status(held: Option<netsplit_keeper::Hold>) -> Status {
    Status { state: State::Running, pid: Some(7), paused: false, held, left: Duration::ZERO, restarts: 0 }
}

/// A keeper's end: it says of each line what `answer` makes of it.
struct Listener(UnixListener);

impl Listener {
    async fn connected(&self) -> BufReader<UnixStream> {
        BufReader::new(self.0.accept().await.unwrap().0)
    }
}

async fn hear(stream: &mut BufReader<UnixStream>, held: Option<netsplit_keeper::Hold>) -> Request {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    stream.write_all(format!("{}\n", status(held)).as_bytes()).await.unwrap();
    line.trim_end().parse().unwrap()
}

#[tokio::test]
async fn a_keeper_is_told_what_the_newest_table_says_and_nothing_before_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let mut keeper = Keeper::follow(socket.clone());
    assert_eq!(keeper.status(), None);
    let listener = Listener(UnixListener::bind(&socket).unwrap());
    let mut stream = listener.connected().await;
    assert_eq!(hear(&mut stream, None).await, Request::Status);
    keeper.changed().await;
    assert_eq!(keeper.status(), Some(status(None)));

    keeper.take(version(5), Some((Hold::Killed, LEASE)));
    let Request::Hold { hold, lease } = hear(&mut stream, Some(netsplit_keeper::Hold::Killed)).await else {
        panic!("a hold")
    };
    assert!(
        hold == netsplit_keeper::Hold::Killed && lease <= LEASE && lease > LEASE / 2,
        "{hold:?} {lease:?}"
    );
    keeper.changed().await;
    assert_eq!(keeper.status().unwrap().held, Some(hold));
    // It was on its way from a leader before.
    keeper.take(version(4), None);
    let again = hear(&mut stream, Some(hold)).await;
    assert!(matches!(again, Request::Hold { .. }), "{again:?}");
    keeper.take(version(6), None);
    assert_eq!(hear(&mut stream, None).await, Request::Free);

    // Another keeper is told at once, too.
    drop(stream);
    let mut stream = listener.connected().await;
    assert_eq!(hear(&mut stream, None).await, Request::Free);
    keeper.changed().await;
}

#[tokio::test]
async fn a_hold_whose_lease_has_ended_does_not_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = Listener(UnixListener::bind(&socket).unwrap());
    let mut keeper = Keeper::follow(socket);
    keeper.take(version(1), Some((Hold::Paused, Duration::from_millis(250))));
    let mut stream = listener.connected().await;
    let mut holds = 0;
    loop {
        match hear(&mut stream, None).await {
            Request::Hold { .. } => holds += 1,
            request => {
                assert_eq!(request, Request::Status);
                break;
            }
        }
    }
    assert!(holds > 0, "it was renewed meanwhile");
    // An agent that gave up waiting for a table frees only what nobody has spoken of.
    keeper.give_up_waiting();
    assert_eq!(hear(&mut stream, None).await, Request::Status);
}

#[tokio::test]
async fn a_node_that_nobody_speaks_of_in_time_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = Listener(UnixListener::bind(&socket).unwrap());
    let keeper = Keeper::follow(socket);
    let mut stream = listener.connected().await;
    assert_eq!(hear(&mut stream, None).await, Request::Status);
    keeper.give_up_waiting();
    assert_eq!(hear(&mut stream, None).await, Request::Free);
}

/// An agent that is started again finds the program in use, and what a node may have put in its place.
#[test]
fn the_program_is_put_there_again_and_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = from.path().join("netsplit-keeper");
    fs::write(&program, "one").unwrap();
    install(&program, to.path()).unwrap();
    fs::write(&program, "two").unwrap();
    let elsewhere = from.path().join("elsewhere");
    fs::write(&elsewhere, "untouched").unwrap();
    std::os::unix::fs::symlink(&elsewhere, to.path().join("netsplit-keeper.new")).unwrap();
    install(&program, to.path()).unwrap();
    let installed = to.path().join("netsplit-keeper");
    assert_eq!(fs::read_to_string(&installed).unwrap(), "two");
    assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
    install(&from.path().join("missing"), to.path()).unwrap_err();
}
