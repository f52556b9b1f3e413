// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/mm/ksm: the in-tree names, meanings and errors, so that every
 * tool that speaks to in-tree KSM speaks to this module.
 */
#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/oom.h>

#include "samepage.h"
#include "attrs.h"
#include "control.h"

struct sp_tunables sp_tunables = {
	.pages_to_scan = 100,
	.sleep_millisecs = 20,
	.max_page_sharing = 256,
	.chains_prune_millisecs = 2000,
	.smart_scan = true,
	.merge_across_nodes = 1,
	.huge_min_twins = 64,
};

static long sp_pages_volatile(void)
{
	long pages = sp_counted(pages_tracked) - sp_stripes_sum(shared) -
		     sp_stripes_sum(sharing) - sp_stripes_sum(candidates);

	return max(pages, 0L);	/* read without the lock: may be torn */
}

/* Bytes saved net of what the module keeps about pages. */
static long sp_general_profit(void)
{
	return (long)(sp_stripes_sum(sharing) + sp_zero_pages()) * (long)PAGE_SIZE -
	       sp_metadata_bytes();
}

SP_COUNTED(pages_scanned, 0444);
SP_STRIPES_SUM(pages_shared, 0444, shared);
SP_STRIPES_SUM(pages_sharing, 0444, sharing);
SP_STRIPES_SUM(pages_unshared, 0444, candidates);
SP_COMPUTED(pages_volatile, 0444, sp_pages_volatile);
SP_COUNTED(pages_skipped, 0444);
SP_COUNT(full_scans, 0444, &sp_passes.full_scans);
SP_COMPUTED(ksm_zero_pages, 0444, sp_zero_pages);
SP_STRIPES_SUM(stable_node_chains, 0444, chains);
SP_STRIPES_SUM(stable_node_dups, 0444, chain_dups);
SP_COMPUTED(general_profit, 0444, sp_general_profit);

SP_NUMBER(sleep_millisecs, &sp_tunables.sleep_millisecs, sp_scan_retime);
SP_NUMBER(stable_node_chains_prune_millisecs, &sp_tunables.chains_prune_millisecs,
	  NULL);
SP_FLAG(use_zero_pages, &sp_tunables.use_zero_pages, sp_scan_reexamine);
SP_FLAG(smart_scan, &sp_tunables.smart_scan, NULL);

/* The advisor's or the governor's to set while one of them is on. */
static ssize_t pages_to_scan_store(struct kobject *kobj, struct kobj_attribute *attr,
				   const char *buf, size_t count)
{
	return sp_advisor_on() || sp_governor_on() ? -EINVAL : sp_number_store(kobj, attr, buf, count);
}

SP_STORED(pages_to_scan, &sp_tunables.pages_to_scan, pages_to_scan_store);

/*
 * Set what the scanner does. Unmerging may fail (-ENOMEM, or -ERESTARTSYS on a
 * signal): the scanner is stopped then.
 */
static int sp_set_run(unsigned int run)
{
	int err = 0;

	sp_scan_lock_all();
	if (sp_run != run) {
		sp_registry_insert_ahead(run == SP_RUN_UNMERGE);
		WRITE_ONCE(sp_run, run);
		if (run == SP_RUN_UNMERGE) {
			/* Copies need memory: be the first to go. */
			set_current_oom_origin();
			err = sp_unmerge_registered();
			clear_current_oom_origin();
			sp_passes.full_scans = 0;
			if (err)
				WRITE_ONCE(sp_run, SP_RUN_STOP);
		}
	}
	up_write(&sp_scan_lock);
	if (run == SP_RUN_MERGE)
		sp_scan_wake();
	return err;
}

static ssize_t run_store(struct kobject *kobj, struct kobj_attribute *attr,
			 const char *buf, size_t count)
{
	unsigned int run;
	int err;

	if (kstrtouint(buf, 10, &run) || run > SP_RUN_UNMERGE)
		return -EINVAL;
	err = sp_set_run(run);
	return err ?: count;
}

static struct sp_attr sp_attr_run = {
	.attr = __ATTR(run, 0644, sp_count_show, run_store), .count = &sp_run
};

/* What keys and limits mean may only change while nothing is merged. */
static int sp_set_while_unmerged(unsigned int *tunable, unsigned int value)
{
	int err = 0;

	sp_scan_lock_all();
	if (*tunable != value) {
		if (sp_stripes_sum(shared) || !sp_stable_release_all())
			err = -EBUSY;
		else
			WRITE_ONCE(*tunable, value);
		sp_scan_reexamine();
	}
	up_write(&sp_scan_lock);
	return err;
}

static ssize_t max_page_sharing_store(struct kobject *kobj,
				      struct kobj_attribute *attr,
				      const char *buf, size_t count)
{
	int value;
	int err = kstrtoint(buf, 10, &value);

	if (err)
		return err;
	if (value < 2)
		return -EINVAL;
	err = sp_set_while_unmerged(&sp_tunables.max_page_sharing, value);
	return err ?: count;
}

SP_STORED(max_page_sharing, &sp_tunables.max_page_sharing, max_page_sharing_store);

static ssize_t merge_across_nodes_store(struct kobject *kobj,
					struct kobj_attribute *attr,
					const char *buf, size_t count)
{
	unsigned long value;
	int err = kstrtoul(buf, 10, &value);

	if (err)
		return err;
	if (value > 1)
		return -EINVAL;
	err = sp_set_while_unmerged(&sp_tunables.merge_across_nodes, value);
	return err ?: count;
}

SP_STORED(merge_across_nodes, &sp_tunables.merge_across_nodes,
	  merge_across_nodes_store);

static struct attribute *sp_ksm_attrs[] = {
	&sp_attr_run.attr.attr,
	&sp_attr_pages_to_scan.attr.attr,
	&sp_attr_sleep_millisecs.attr.attr,
	&sp_attr_max_page_sharing.attr.attr,
	&sp_attr_merge_across_nodes.attr.attr,
	&sp_attr_use_zero_pages.attr.attr,
	&sp_attr_smart_scan.attr.attr,
	&sp_attr_stable_node_chains_prune_millisecs.attr.attr,
	&sp_attr_pages_scanned.attr.attr,
	&sp_attr_pages_shared.attr.attr,
	&sp_attr_pages_sharing.attr.attr,
	&sp_attr_pages_unshared.attr.attr,
	&sp_attr_pages_volatile.attr.attr,
	&sp_attr_pages_skipped.attr.attr,
	&sp_attr_full_scans.attr.attr,
	&sp_attr_ksm_zero_pages.attr.attr,
	&sp_attr_stable_node_chains.attr.attr,
	&sp_attr_stable_node_dups.attr.attr,
	&sp_attr_general_profit.attr.attr,
	NULL,
};

/*
 * Counters are sums over all domains: where domains keep strangers apart, what is
 * merged in one must not show in another.
 */
static umode_t sp_ksm_mode(struct kobject *kobj, struct attribute *attr, int nr)
{
	bool tunable = attr->mode & 0200;

	return tunable || sp_domain_policy() == SP_BY_NONE ? attr->mode : 0400;
}

const struct attribute_group sp_ksm_group = {
	.name = "ksm",
	.attrs = sp_ksm_attrs,
	.is_visible = sp_ksm_mode,
};
