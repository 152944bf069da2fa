
/*
 * Added to drivers/char/random.c. A guest that goes on from a snapshot's copy is another machine, and
 * /proc/sys/kernel/random/boot_id must say so. The file makes its value when it is read for the first
 * time: forgetting it is enough. Writing anything to /sys/module/random/parameters/forget_boot_id,
 * which root of the first user namespace may, does that; a mount over the file would do it too, but
 * then no user of the guest could mount a /proc of their own (fs/namespace.c, mount_too_revealing).
 */
#include <linux/moduleparam.h>

static int forget_boot_id(const char *value, const struct kernel_param *param)
{
	WRITE_ONCE(sysctl_bootid[8], 0);
	return 0;
}

static const struct kernel_param_ops forget_boot_id_ops = {
	.set = forget_boot_id,
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
};
module_param_cb(forget_boot_id, &forget_boot_id_ops, NULL, 0200);
