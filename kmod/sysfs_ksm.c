// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/mm/ksm: the in-tree names, meanings and errors, so that every
 * tool that speaks to in-tree KSM speaks to this module.
 */
#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/sysfs.h>

#include "samepage.h"

struct sp_tunables sp_tunables = {
	.pages_to_scan = 100,
	.sleep_millisecs = 20,
	.max_page_sharing = 256,
	.chains_prune_millisecs = 2000,
	.smart_scan = true,
	.merge_across_nodes = true,
};

#define SHOW(name, format, value)					\
	static ssize_t name##_show(struct kobject *kobj,		\
				   struct kobj_attribute *attr, char *buf) \
	{								\
		return sysfs_emit(buf, format "\n", value);		\
	}
#define STORE(name)							\
	static ssize_t name##_store(struct kobject *kobj,		\
				    struct kobj_attribute *attr,	\
				    const char *buf, size_t count)
#define COUNTER(name, format, value)					\
	SHOW(name, format, value)					\
	static struct kobj_attribute name##_attr = __ATTR_RO(name)
#define TUNABLE(name) static struct kobj_attribute name##_attr = __ATTR_RW(name)

/* Plain tunables: any value of the type will do. */
#define TUNABLE_UINT(name, field, then)					\
	SHOW(name, "%u", sp_tunables.field)				\
	STORE(name)							\
	{								\
		unsigned int value;					\
									\
		if (kstrtouint(buf, 10, &value))			\
			return -EINVAL;					\
		WRITE_ONCE(sp_tunables.field, value);			\
		then;							\
		return count;						\
	}								\
	TUNABLE(name)
#define TUNABLE_BOOL(name)						\
	SHOW(name, "%u", sp_tunables.name)				\
	STORE(name)							\
	{								\
		bool value;						\
									\
		if (kstrtobool(buf, &value))				\
			return -EINVAL;					\
		WRITE_ONCE(sp_tunables.name, value);			\
		return count;						\
	}								\
	TUNABLE(name)

static long sp_pages_volatile(void)
{
	long pages = sp_stats.pages_tracked - sp_stats.pages_shared -
		     sp_stats.pages_sharing - sp_stats.pages_unshared;

	return max(pages, 0L);	/* read without the lock: may be torn */
}

/* Bytes saved net of what the module keeps about pages. */
static long sp_general_profit(void)
{
	long kept = sp_stats.blocks * sizeof(struct sp_block) +
		    sp_stats.items * sizeof(struct sp_item) +
		    sp_stats.stables * sizeof(struct sp_stable);

	return (long)(sp_stats.pages_sharing + sp_zero_pages()) * (long)PAGE_SIZE -
	       kept;
}

COUNTER(pages_scanned, "%lu", sp_stats.pages_scanned);
COUNTER(pages_shared, "%lu", sp_stats.pages_shared);
COUNTER(pages_sharing, "%lu", sp_stats.pages_sharing);
COUNTER(pages_unshared, "%lu", sp_stats.pages_unshared);
COUNTER(pages_volatile, "%ld", sp_pages_volatile());
COUNTER(pages_skipped, "%lu", sp_stats.pages_skipped);
COUNTER(full_scans, "%lu", sp_stats.full_scans);
COUNTER(ksm_zero_pages, "%ld", sp_zero_pages());
COUNTER(stable_node_chains, "%lu", sp_stats.chains);
COUNTER(stable_node_dups, "%lu", sp_stats.chain_dups);
COUNTER(general_profit, "%ld", sp_general_profit());

TUNABLE_UINT(pages_to_scan, pages_to_scan, );
TUNABLE_UINT(sleep_millisecs, sleep_millisecs, sp_scan_retime());
TUNABLE_UINT(stable_node_chains_prune_millisecs, chains_prune_millisecs, );
TUNABLE_BOOL(use_zero_pages);
TUNABLE_BOOL(smart_scan);

/*
 * Set what the scanner does. Stopping and unmerging may fail (-ENOMEM, or
 * -ERESTARTSYS on a signal): the scanner is stopped then.
 */
int sp_run_store(unsigned int run)
{
	int err = 0;

	mutex_lock(&sp_scan_mutex);
	sp_wait_while_offlining();
	if (sp_run != run) {
		sp_registry_insert_ahead(run == SP_RUN_UNMERGE);
		WRITE_ONCE(sp_run, run);
		if (run == SP_RUN_UNMERGE) {
			/* Copies need memory: be the first to go. */
			set_current_oom_origin();
			err = sp_unmerge_registered();
			clear_current_oom_origin();
			sp_stats.full_scans = 0;
			if (err)
				WRITE_ONCE(sp_run, SP_RUN_STOP);
		}
	}
	mutex_unlock(&sp_scan_mutex);
	if (run == SP_RUN_MERGE)
		sp_scan_wake();
	return err;
}

SHOW(run, "%lu", sp_run)
STORE(run)
{
	unsigned int run;
	int err;

	if (kstrtouint(buf, 10, &run) || run > SP_RUN_UNMERGE)
		return -EINVAL;
	err = sp_run_store(run);
	return err ?: count;
}
TUNABLE(run);

/* What keys mean may only change while nothing is merged. */
static int sp_with_empty_tree(void (*change)(unsigned int value), unsigned int value)
{
	int err = -EBUSY;

	mutex_lock(&sp_scan_mutex);
	sp_wait_while_offlining();
	if (!sp_stats.pages_shared && sp_stable_release_all()) {
		change(value);
		err = 0;
	}
	mutex_unlock(&sp_scan_mutex);
	return err;
}

static void sp_change_max_page_sharing(unsigned int value)
{
	WRITE_ONCE(sp_tunables.max_page_sharing, value);
}

SHOW(max_page_sharing, "%u", sp_tunables.max_page_sharing)
STORE(max_page_sharing)
{
	int value;
	int err = kstrtoint(buf, 10, &value);

	if (err)
		return err;
	if (value < 2)
		return -EINVAL;
	if (value != READ_ONCE(sp_tunables.max_page_sharing))
		err = sp_with_empty_tree(sp_change_max_page_sharing, value);
	return err ?: count;
}
TUNABLE(max_page_sharing);

static void sp_change_merge_across_nodes(unsigned int value)
{
	WRITE_ONCE(sp_tunables.merge_across_nodes, value);
}

SHOW(merge_across_nodes, "%u", sp_tunables.merge_across_nodes)
STORE(merge_across_nodes)
{
	unsigned long value;
	int err = kstrtoul(buf, 10, &value);

	if (err)
		return err;
	if (value > 1)
		return -EINVAL;
	if (value != READ_ONCE(sp_tunables.merge_across_nodes))
		err = sp_with_empty_tree(sp_change_merge_across_nodes, value);
	return err ?: count;
}
TUNABLE(merge_across_nodes);

static struct attribute *sp_ksm_attrs[] = {
	&run_attr.attr,
	&pages_to_scan_attr.attr,
	&sleep_millisecs_attr.attr,
	&max_page_sharing_attr.attr,
	&merge_across_nodes_attr.attr,
	&use_zero_pages_attr.attr,
	&smart_scan_attr.attr,
	&stable_node_chains_prune_millisecs_attr.attr,
	&pages_scanned_attr.attr,
	&pages_shared_attr.attr,
	&pages_sharing_attr.attr,
	&pages_unshared_attr.attr,
	&pages_volatile_attr.attr,
	&pages_skipped_attr.attr,
	&full_scans_attr.attr,
	&ksm_zero_pages_attr.attr,
	&stable_node_chains_attr.attr,
	&stable_node_dups_attr.attr,
	&general_profit_attr.attr,
	NULL,
};

const struct attribute_group sp_ksm_group = {
	.name = "ksm",
	.attrs = sp_ksm_attrs,
};
