//! Why a network is not made, removed or joined, in Docker's words.

/// Why a network is not made, removed or joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworksError {
    /// A name that means something else.
    #[error("operation is not permitted on predefined {0} network")]
    Predefined(String),
    /// A network that every installation has.
    #[error("{0} is a pre-defined network and cannot be removed")]
    PredefinedRemove(&'static str),
    /// A name that nothing can have.
    #[error(
        "invalid network name {0:?}: a name is 1 to 128 letters, digits, '_', '.' and '-', and starts with a letter or digit"
    )]
    Name(String),
    /// A driver that there is not.
    #[error("plugin {0:?} not found")]
    Driver(String),
    /// The host's network is joined or left.
    #[error("container cannot be disconnected from host network or connected to host network")]
    Host,
    /// A container that has another one's network, or the host's.
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    Shares,
    /// A container with `--network none`.
    #[error(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    )]
    Private,
    /// Something that only networks which were made have.
    #[error("{0} is supported on user defined networks only")]
    OwnOnly(&'static str),
    /// A member of no such network.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// The container's id.
        container: String,
        /// The network's name.
        network: String,
    },
}
