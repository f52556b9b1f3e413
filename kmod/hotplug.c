// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory hotplug: while memory goes offline, nothing but reverse-map walks may
 * touch stable nodes, as their page structs may vanish; afterwards the nodes of
 * pages that could not be migrated are dropped.
 */
#include <linux/memory.h>
#include <linux/wait_bit.h>

#include "samepage.h"

static void sp_offlining_done(void)
{
	mutex_lock(&sp_scan_mutex);
	clear_bit(SP_RUN_OFFLINE_BIT, &sp_run);
	mutex_unlock(&sp_scan_mutex);
	smp_mb();	/* before wake_up_bit() looks for waiters */
	wake_up_bit(&sp_run, SP_RUN_OFFLINE_BIT);
}

static int sp_memory_event(struct notifier_block *self, unsigned long action,
			   void *arg)
{
	struct memory_notify *memory = arg;

	switch (action) {
	case MEM_GOING_OFFLINE:
		mutex_lock(&sp_scan_mutex);
		set_bit(SP_RUN_OFFLINE_BIT, &sp_run);
		mutex_unlock(&sp_scan_mutex);
		break;
	case MEM_OFFLINE:
		sp_stable_forget_pfns(memory->start_pfn,
				      memory->start_pfn + memory->nr_pages);
		sp_offlining_done();
		break;
	case MEM_CANCEL_OFFLINE:
		sp_offlining_done();
		break;
	}
	return NOTIFY_OK;
}

static struct notifier_block sp_memory_notifier = {
	.notifier_call = sp_memory_event,
	.priority = 100,	/* before the allocator's own, as in-tree KSM */
};

int sp_hotplug_init(void)
{
	return register_memory_notifier(&sp_memory_notifier);
}

void sp_hotplug_exit(void)
{
	unregister_memory_notifier(&sp_memory_notifier);
}
