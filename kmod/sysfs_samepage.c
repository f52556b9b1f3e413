// SPDX-License-Identifier: GPL-2.0-only
/* /sys/kernel/mm/samepage: what in-tree KSM has no name for. For root alone. */
#include <linux/kstrtox.h>
#include <linux/mm.h>

#include "samepage.h"
#include "attrs.h"
#include "contents.h"
#include "control.h"

/* What the module allocates about pages, in bytes. */
long sp_metadata_bytes(void)
{
	return sp_counted(blocks) * sizeof(struct sp_block) +
	       sp_counted(items) * sizeof(struct sp_item) +
	       sp_counted(stables) * sizeof(struct sp_stable) + sp_unstable_bytes() +
	       sp_frames_held() * PAGE_SIZE + sp_contents_bytes();
}

static ssize_t threads_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	unsigned int threads;
	int err = kstrtouint(buf, 10, &threads);

	err = err ?: sp_scan_set_threads(threads);
	return err ?: count;
}

static struct sp_attr sp_attr_threads = {
	.attr = __ATTR(threads, 0644, sp_compute_show, threads_store),
	.compute = sp_scan_threads,
};

SP_COUNTED(merges, 0400);
SP_COUNTED(merges_failed, 0400);
SP_COUNTED(unmerged, 0400);
SP_COUNTED(stale_candidates, 0400);
SP_COUNTED(sample_collisions, 0400);
SP_COUNT(huge_examined, 0400, &sp_passes.huge_examined);
SP_COUNT(huge_spared, 0400, &sp_passes.huge_spared);
SP_COUNTED(huge_split, 0400);
SP_COUNTED(lock_waits, 0400);
SP_NUMBER(huge_min_twins, &sp_tunables.huge_min_twins, sp_scan_reexamine);
SP_COUNTED(pages_tracked, 0400);
SP_COUNTED(kept, 0400);
SP_COMPUTED(metadata_bytes, 0400, sp_metadata_bytes);
SP_COMPUTED(common_contents, 0400, sp_contents_count);

static struct attribute *sp_attrs[] = {
	&sp_attr_merges.attr.attr,
	&sp_attr_merges_failed.attr.attr,
	&sp_attr_unmerged.attr.attr,
	&sp_attr_stale_candidates.attr.attr,
	&sp_attr_sample_collisions.attr.attr,
	&sp_attr_huge_examined.attr.attr,
	&sp_attr_huge_spared.attr.attr,
	&sp_attr_huge_split.attr.attr,
	&sp_attr_huge_min_twins.attr.attr,
	&sp_attr_threads.attr.attr,
	&sp_attr_lock_waits.attr.attr,
	&sp_attr_pages_tracked.attr.attr,
	&sp_attr_kept.attr.attr,
	&sp_attr_metadata_bytes.attr.attr,
	&sp_attr_common_contents.attr.attr,
	NULL,
};

static const struct attribute_group sp_group = {
	.name = "samepage",
	.attrs = sp_attrs,
};

/* The first two are folders, and the others add to them. */
static const struct attribute_group *const sp_groups[] = {
	&sp_ksm_group, &sp_group, &sp_advisor_group, &sp_governor_group, &sp_reserve_group,
	&sp_domain_group,
};

#define SP_FOLDERS 2

static int sp_group_add(unsigned int nr)
{
	if (nr < SP_FOLDERS)
		return sysfs_create_group(sp_kernel.mm_kobj, sp_groups[nr]);
	return sysfs_merge_group(sp_kernel.mm_kobj, sp_groups[nr]);
}

/* The first @count of them, the last one first. */
static void sp_groups_remove(unsigned int count)
{
	while (count--) {
		if (count < SP_FOLDERS)
			sysfs_remove_group(sp_kernel.mm_kobj, sp_groups[count]);
		else
			sysfs_unmerge_group(sp_kernel.mm_kobj, sp_groups[count]);
	}
}

/* All groups; in-tree KSM's "ksm" must be gone before. */
int sp_sysfs_init(void)
{
	unsigned int nr;

	for (nr = 0; nr < ARRAY_SIZE(sp_groups); nr++) {
		int err = sp_group_add(nr);

		if (err) {
			sp_groups_remove(nr);
			return err;
		}
	}
	return 0;
}

void sp_sysfs_exit(void)
{
	sp_groups_remove(ARRAY_SIZE(sp_groups));
}
