/*
 * Included by fs/fuse/virtio_fs.c in place of a function of that name that does nothing. Whoever waits for a
 * lock of a file from outside can be interrupted or killed: the server is told so, and answers the
 * request that waits. The message has the form of a FORGET, whose body is one number, too.
 */
static void virtio_fs_wake_interrupt_and_unlock(struct fuse_iqueue *fiq)
__releases(fiq->lock)
{
	struct virtio_fs *fs = fiq->priv;
	struct virtio_fs_forget *message;
	struct fuse_req *req;
	u64 unique;

	req = list_first_entry_or_null(&fiq->interrupts, struct fuse_req, intr_entry);
	if (!req) {
		spin_unlock(&fiq->lock);
		return;
	}
	list_del_init(&req->intr_entry);
	unique = req->in.h.unique;
	spin_unlock(&fiq->lock);

	message = kzalloc(sizeof(*message), GFP_NOFS | __GFP_NOFAIL);
	message->req.ih.opcode = FUSE_INTERRUPT;
	/* An interrupt's number is its request's with the lowest bit. */
	message->req.ih.unique = unique | 1;
	message->req.ih.len = sizeof(message->req);
	message->req.arg.nlookup = unique;
	send_forget_request(&fs->vqs[VQ_HIPRIO], message, false);
}
