// SPDX-License-Identifier: GPL-2.0-only
/*
 * samepage: kernel same-page merging as a module, in place of mm/ksm.c.
 *
 * To unload: write 0 to /sys/kernel/livepatch/samepage/enabled, wait until that
 * directory is gone, then rmmod.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>

#include "check.h"
#include "contents.h"
#include "control.h"
#include "explicit.h"

static void sp_caches_destroy(void)
{
	sp_stable_destroy();
	sp_unstable_destroy();
	sp_records_destroy();
	sp_registry_destroy();
	sp_domains_destroy();
	sp_explicit_destroy();
	sp_shares_destroy();
	sp_contents_destroy();
}

static int __init sp_caches_init(void)
{
	int err = sp_registry_init() ?: sp_records_init() ?: sp_stable_init() ?:
		  sp_unstable_init();

	if (err)
		sp_caches_destroy();
	return err;
}

static int __init sp_init(void)
{
	int err = sp_kernel_check() ?: sp_symbols_resolve();

	if (err)
		goto out;
	err = sp_caches_init();
	if (err)
		goto out;
	sp_signature_init();
	err = sp_scan_start();
	if (err)
		goto caches;
	err = sp_hotplug_init();
	if (err)
		goto scanner;
	err = sp_reserve_init();
	if (err)
		goto hotplug;
	err = sp_timing_init();
	if (err)
		goto reserve;
	err = sp_device_init();
	if (err)
		goto timing;
	err = sp_takeover();
	if (!err) {
		sp_check_init();
		return 0;
	}
	sp_device_exit();
timing:
	sp_timing_exit();
reserve:
	sp_reserve_exit();
hotplug:
	sp_hotplug_exit();
scanner:
	sp_scan_stop();
caches:
	sp_caches_destroy();
out:
	pr_err("not loaded (%d)\n", err);
	return err;
}

/* Comes only after the livepatch is gone: everything was handed back. */
static void __exit sp_exit_module(void)
{
	sp_check_exit();
	sp_device_exit();
	sp_timing_exit();
	sp_reserve_exit();
	sp_hotplug_exit();
	sp_scan_stop();
	sp_caches_destroy();
}

module_init(sp_init);
module_exit(sp_exit_module);

MODULE_DESCRIPTION("Kernel same-page merging in place of mm/ksm.c");
MODULE_VERSION("0.1");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
