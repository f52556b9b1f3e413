// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory hotplug: while memory goes offline, nothing but reverse-map walks may
 * touch stable nodes, as their page structs may vanish; afterwards the nodes of
 * pages that could not be migrated are dropped.
 *
 * Whoever takes sp_scan_lock to look at nodes waits here first. The notifier itself
 * works without the lock: sp_offlining keeps all others out.
 */
#include <linux/memory.h>
#include <linux/wait.h>

#include "samepage.h"
#include "control.h"

static DECLARE_WAIT_QUEUE_HEAD(sp_online);
static bool sp_offlining;	/* set under sp_scan_lock */

/* Take sp_scan_lock for reading: a round of a scanner. */
void sp_scan_lock_shared(void)
{
	down_read(&sp_scan_lock);
	while (sp_offlining) {
		up_read(&sp_scan_lock);
		wait_event(sp_online, !READ_ONCE(sp_offlining));
		down_read(&sp_scan_lock);
	}
}

/* Take sp_scan_lock for writing: all that the module knows. */
void sp_scan_lock_all(void)
{
	down_write(&sp_scan_lock);
	while (sp_offlining) {
		up_write(&sp_scan_lock);
		wait_event(sp_online, !READ_ONCE(sp_offlining));
		down_write(&sp_scan_lock);
	}
}

/* For who has taken sp_scan_lock without waiting: look at no stable node. */
bool sp_scan_is_offlining(void)
{
	return sp_offlining;
}

static void sp_set_offlining(bool offlining)
{
	down_write(&sp_scan_lock);
	WRITE_ONCE(sp_offlining, offlining);
	up_write(&sp_scan_lock);
	if (!offlining)
		wake_up_all(&sp_online);
}

static int sp_memory_event(struct notifier_block *self, unsigned long action,
			   void *arg)
{
	const struct memory_notify *memory = arg;

	if (action == MEM_GOING_OFFLINE) {
		sp_set_offlining(true);
		sp_reserve_drop();	/* some of it may be there */
		sp_frames_drop();
	}
	if (action == MEM_OFFLINE)
		sp_stable_forget_pfns(memory->start_pfn,
				      memory->start_pfn + memory->nr_pages);
	if (action == MEM_OFFLINE || action == MEM_CANCEL_OFFLINE)
		sp_set_offlining(false);
	return NOTIFY_OK;
}

static struct notifier_block sp_memory_notifier = {
	.notifier_call = sp_memory_event,
	.priority = 100,	/* as in-tree KSM's */
};

int sp_hotplug_init(void)
{
	return register_memory_notifier(&sp_memory_notifier);
}

void sp_hotplug_exit(void)
{
	unregister_memory_notifier(&sp_memory_notifier);
}
