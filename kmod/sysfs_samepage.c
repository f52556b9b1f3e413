// SPDX-License-Identifier: GPL-2.0-only
/* /sys/kernel/mm/samepage: what in-tree KSM has no name for. Read-only, root. */
#include <linux/mm.h>
#include <linux/sysfs.h>

#include "samepage.h"

#define COUNTER(name, format, value)					\
	static ssize_t name##_show(struct kobject *kobj,		\
				   struct kobj_attribute *attr, char *buf) \
	{								\
		return sysfs_emit(buf, format "\n", value);		\
	}								\
	static struct kobj_attribute name##_attr = __ATTR(name, 0400, name##_show, NULL)

COUNTER(version, "%s", THIS_MODULE->version ?: "unknown");
COUNTER(merges, "%lu", sp_stats.merges);
COUNTER(merges_failed, "%lu", sp_stats.merges_failed);
COUNTER(cow_breaks, "%lu", sp_stats.cow_breaks);
COUNTER(stale_candidates, "%lu", sp_stats.stale_candidates);
COUNTER(pages_tracked, "%lu", sp_stats.pages_tracked);
COUNTER(metadata_bytes, "%zu",
	sp_stats.blocks * sizeof(struct sp_block) +
	sp_stats.items * sizeof(struct sp_item) +
	sp_stats.stables * sizeof(struct sp_stable));

static struct attribute *sp_attrs[] = {
	&version_attr.attr,
	&merges_attr.attr,
	&merges_failed_attr.attr,
	&cow_breaks_attr.attr,
	&stale_candidates_attr.attr,
	&pages_tracked_attr.attr,
	&metadata_bytes_attr.attr,
	NULL,
};

static const struct attribute_group sp_group = {
	.name = "samepage",
	.attrs = sp_attrs,
};

/* Both groups; in-tree KSM's "ksm" must be gone before. */
int sp_sysfs_init(void)
{
	int err = sysfs_create_group(sp_kernel.mm_kobj, &sp_ksm_group);

	if (err)
		return err;
	err = sysfs_create_group(sp_kernel.mm_kobj, &sp_group);
	if (err)
		sysfs_remove_group(sp_kernel.mm_kobj, &sp_ksm_group);
	return err;
}

void sp_sysfs_exit(void)
{
	sysfs_remove_group(sp_kernel.mm_kobj, &sp_group);
	sysfs_remove_group(sp_kernel.mm_kobj, &sp_ksm_group);
}
