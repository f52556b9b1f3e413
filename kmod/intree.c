// SPDX-License-Identifier: GPL-2.0-only
/*
 * In-tree KSM as seen through its own sysfs attributes: quieted before the
 * take-over, given back as it was found.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "samepage.h"

static unsigned long sp_intree_run;	/* as found at load */

static struct kobj_attribute *sp_intree_attr(const char *name)
{
	struct attribute **attr;

	for (attr = sp_kernel.ksm_attr_group->attrs; *attr; attr++)
		if (!strcmp((*attr)->name, name))
			return container_of(*attr, struct kobj_attribute, attr);
	return NULL;
}

/* An in-tree value, or @otherwise where this kernel has no such attribute. */
static unsigned long sp_intree_read(const char *name, unsigned long otherwise)
{
	struct kobj_attribute *attr = sp_intree_attr(name);
	char *page = attr ? (char *)get_zeroed_page(GFP_KERNEL) : NULL;
	unsigned long value = otherwise;

	if (!page)
		return otherwise;
	attr->show(sp_kernel.mm_kobj, attr, page);
	if (kstrtoul(page, 10, &value))
		value = otherwise;
	free_page((unsigned long)page);
	return value;
}

static int sp_intree_store_run(const char *value)
{
	struct kobj_attribute *attr = sp_intree_attr("run");
	ssize_t stored = attr ? attr->store(sp_kernel.mm_kobj, attr, value,
					    strlen(value)) : -ENOENT;

	return stored < 0 ? stored : 0;
}

/* Put in-tree KSM back to what it did at load. */
void sp_intree_resume(void)
{
	char value[2] = { '0' + sp_intree_run };

	sp_intree_store_run(value);
}

/* What the administrator set for in-tree KSM holds for this module too. */
static void sp_intree_inherit(void)
{
	struct sp_tunables *t = &sp_tunables;

	sp_run = sp_intree_run;
	t->pages_to_scan = sp_intree_read("pages_to_scan", t->pages_to_scan);
	t->sleep_millisecs = sp_intree_read("sleep_millisecs", t->sleep_millisecs);
	t->max_page_sharing = sp_intree_read("max_page_sharing", t->max_page_sharing);
	t->use_zero_pages = sp_intree_read("use_zero_pages", t->use_zero_pages);
	t->smart_scan = sp_intree_read("smart_scan", t->smart_scan);
	t->merge_across_nodes = sp_intree_read("merge_across_nodes",
					       t->merge_across_nodes);
}

/*
 * Unmerge what in-tree KSM merged and stop it: no page may be left that points
 * to one of its nodes. 0 or an errno, in-tree KSM going on as before then.
 */
int sp_intree_quiet(void)
{
	unsigned long left;
	int err;

	sp_intree_run = sp_intree_read("run", SP_RUN_STOP);
	if (sp_intree_run > SP_RUN_UNMERGE)
		return -EBUSY;	/* memory is going offline */
	sp_intree_inherit();
	/* A second "2" would do nothing. */
	err = sp_intree_store_run("0") ?: sp_intree_store_run("2");
	left = sp_intree_read("pages_shared", 0) + sp_intree_read("pages_sharing", 0);
	if (!err && left)
		err = -EBUSY;
	if (err) {
		pr_err("in-tree KSM cannot unmerge its pages (%d, %lu left): not loading\n",
		       err, left);
		sp_intree_resume();
		return err;
	}
	/* At 2 it would go on copying every merged page that is swapped in. */
	return sp_intree_store_run("0");
}
