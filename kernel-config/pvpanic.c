// SPDX-License-Identifier: GPL-2.0
/*
 * Tells the VMM how the guest ends: one byte to the pvpanic port, with the bits that QEMU's
 * docs/specs/pvpanic.rst gives them. The kernel's own pvpanic driver needs ACPI or PCI to find the
 * device; this guest has neither, and without ACPI it has no way to power itself off at all.
 */
#include <linux/init.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/kvm_para.h>
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/reboot.h>

#define PVPANIC_PORT 0x505
#define PVPANIC_PANICKED 0x01
#define PVPANIC_SHUTDOWN 0x04

static int pvpanic_panicked(struct notifier_block *block, unsigned long event, void *message)
{
	outb(PVPANIC_PANICKED, PVPANIC_PORT);
	return NOTIFY_DONE;
}

static struct notifier_block pvpanic_notifier = {
	.notifier_call = pvpanic_panicked,
	.priority = INT_MAX,
};

static int pvpanic_power_off(struct sys_off_data *data)
{
	outb(PVPANIC_SHUTDOWN, PVPANIC_PORT);
	return NOTIFY_DONE;
}

static int __init pvpanic_init(void)
{
	struct sys_off_handler *handler;

	if (!kvm_para_available())
		return 0;
	atomic_notifier_chain_register(&panic_notifier_list, &pvpanic_notifier);
	handler = register_sys_off_handler(SYS_OFF_MODE_POWER_OFF, SYS_OFF_PRIO_DEFAULT,
					   pvpanic_power_off, NULL);
	return PTR_ERR_OR_ZERO(handler);
}
arch_initcall(pvpanic_init);
