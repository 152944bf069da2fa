//! The flags that a process which forwards its command to the helper machine puts in front of it.
//!
//! The machine sees the host's files and cannot write them, so the forwarding process writes them
//! itself. It passes the command's words on as they were typed; which of them do not apply in the machine
//! is decided there, from the parsed command: see [`super::in_machine`].

use clap::Args;
use std::ffi::OsString;

const OUTPUT: &str = "forwarded-output";
const CONTAINER_ID: &str = "forwarded-container-id";
const PROGRESS: &str = "forwarded-progress";
const SERVER_PORT: &str = "forwarded-server-port";
const FETCH: &str = "forwarded-fetch";
const IMAGE: &str = "forwarded-image";
const BIND: &str = "forwarded-bind";

/// The flags of a forwarding process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct Forwarded {
    /// The output file is standard output
    #[arg(long = OUTPUT, hide = true)]
    pub(crate) output: bool,
    /// The id of the container that is created, of which no file is written here
    #[arg(
        long = CONTAINER_ID,
        hide = true,
        value_name = "ID",
        value_parser = hullbox_engine::state::parse_id
    )]
    pub(crate) container_id: Option<String>,
    /// Progress is shown though standard error is no terminal
    #[arg(long = PROGRESS, hide = true)]
    pub(crate) progress: bool,
    /// A server for containers to talk to listens there, on the loopback of the forwarding process's host
    #[arg(long = SERVER_PORT, hide = true, value_name = "PORT")]
    pub(crate) server_port: Option<u16>,
    /// The forwarding process fetches an image that is missing, when this one ends by a signal
    #[arg(long = FETCH, hide = true)]
    pub(crate) fetch: bool,
    /// The name of the image, which is there, in place of the one that was typed
    #[arg(long = IMAGE, hide = true, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Absolute path of the host outside that a bind mount has, in the order of [`super::mounts::binds_of`]
    #[arg(long = BIND, hide = true, value_name = "PATH")]
    pub(crate) binds: Vec<String>,
}

impl Forwarded {
    /// The command line `args`, without the program's name, with these flags in front.
    pub(crate) fn command_line(&self, args: &[OsString]) -> Vec<OsString> {
        let switch = |name: &str, on: bool| on.then(|| format!("--{name}"));
        let id = self.container_id.as_ref();
        let flags = [
            switch(OUTPUT, self.output),
            switch(PROGRESS, self.progress),
            id.map(|id| format!("--{CONTAINER_ID}={id}")),
            self.server_port
                .map(|port| format!("--{SERVER_PORT}={port}")),
            switch(FETCH, self.fetch),
            self.image
                .as_ref()
                .map(|image| format!("--{IMAGE}={image}")),
        ];
        let binds = self.binds.iter();
        let binds = binds.map(|path| format!("--{BIND}={path}"));
        let flags = flags.into_iter().flatten().chain(binds);
        let flags = flags.map(OsString::from);
        flags.chain(args.iter().cloned()).collect()
    }
}
