// SPDX-License-Identifier: GPL-2.0-only
/*
 * In-tree KSM as seen through its own sysfs attributes: quieted before the
 * take-over, given back as it was found. Its files are out of reach of others
 * meanwhile; the attributes' functions work all the same.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "samepage.h"
#include "control.h"

#define SP_QUIET_TRIES	50
#define SP_QUIET_MSECS	100

static unsigned long sp_intree_run;	/* as found at load */

static struct kobj_attribute *sp_intree_attr(const char *name)
{
	struct attribute **attr;

	for (attr = sp_kernel.ksm_attr_group->attrs; *attr; attr++)
		if (!strcmp((*attr)->name, name))
			return container_of(*attr, struct kobj_attribute, attr);
	return NULL;
}

/* What the attribute's file shows, to be freed; NULL without it or memory. */
static char *sp_intree_show(const char *name)
{
	struct kobj_attribute *attr = sp_intree_attr(name);
	char *text = attr ? (char *)get_zeroed_page(GFP_KERNEL) : NULL;

	if (text)
		attr->show(sp_kernel.mm_kobj, attr, text);
	return text;
}

static int sp_intree_read(const char *name, unsigned long *value)
{
	char *text = sp_intree_show(name);
	int err = text ? kstrtoul(text, 10, value) : -ENOMEM;

	free_page((unsigned long)text);
	return err;
}

static int sp_intree_store(const char *name, const char *value)
{
	struct kobj_attribute *attr = sp_intree_attr(name);
	ssize_t stored = attr ? attr->store(sp_kernel.mm_kobj, attr, value,
					    strlen(value)) : -ENOENT;

	return stored < 0 ? stored : 0;
}

static int sp_intree_store_number(const char *name, unsigned long value)
{
	char text[24];

	snprintf(text, sizeof(text), "%lu", value);
	return sp_intree_store(name, text);
}

/* Put in-tree KSM back to what it did at load. */
void sp_intree_resume(void)
{
	sp_intree_store_number("run", sp_intree_run);
}

/*
 * In-tree takes another max_page_sharing only once its stable tree is empty,
 * which its counters do not tell: a process that is exiting may still map a
 * merged page.
 */
static int sp_intree_check_empty(void)
{
	unsigned long sharing;
	int tries, err = sp_intree_read("max_page_sharing", &sharing);

	if (err)
		return err;
	for (tries = 0; tries < SP_QUIET_TRIES; tries++) {
		err = sp_intree_store_number("max_page_sharing", sharing + 1);
		if (!err)
			return sp_intree_store_number("max_page_sharing", sharing);
		msleep(SP_QUIET_MSECS);
	}
	return err;
}

/*
 * Unmerge what in-tree KSM merged and stop it: no page may be left that points
 * to one of its nodes. 0 or an errno, in-tree KSM going on as before then.
 */
int sp_intree_quiet(void)
{
	int err = sp_intree_read("run", &sp_intree_run);

	if (!err && sp_intree_run > SP_RUN_UNMERGE)
		err = -EBUSY;
	if (err) {
		pr_err("cannot stop in-tree KSM (%d): is memory going offline?\n", err);
		return err;
	}
	/* By way of "0", as a second "2" would do nothing. */
	err = sp_intree_store("run", "0") ?: sp_intree_store("run", "2");
	err = err ?: sp_intree_check_empty();
	/* At 2 it would copy every merged page that is swapped in, forever. */
	err = err ?: sp_intree_store("run", "0");
	if (err) {
		pr_err("in-tree KSM cannot unmerge all its pages (%d)\n", err);
		sp_intree_resume();
	}
	return err;
}

static void sp_inherit_number(const char *name, unsigned int *tunable)
{
	unsigned long value;

	if (!sp_intree_read(name, &value))
		*tunable = value;
}

static void sp_inherit_flag(const char *name, bool *tunable)
{
	unsigned long value;

	if (!sp_intree_read(name, &value))
		*tunable = value;
}

static void sp_inherit_advisor(void)
{
	char *mode = sp_intree_show("advisor_mode");
	struct sp_advisor_limits *limits = &sp_advisor_limits;

	if (mode)
		sp_advisor_set(strstr(mode, "[scan-time]"));
	free_page((unsigned long)mode);
	sp_intree_read("advisor_max_cpu", &limits->max_cpu);
	sp_intree_read("advisor_min_pages_to_scan", &limits->min_pages);
	sp_intree_read("advisor_max_pages_to_scan", &limits->max_pages);
	sp_intree_read("advisor_target_scan_time", &limits->target_seconds);
}

/* What the administrator set for in-tree KSM holds for this module too. */
void sp_intree_inherit(void)
{
	struct sp_tunables *t = &sp_tunables;

	sp_inherit_advisor();
	sp_inherit_number("pages_to_scan", &t->pages_to_scan);
	sp_inherit_number("sleep_millisecs", &t->sleep_millisecs);
	sp_inherit_number("max_page_sharing", &t->max_page_sharing);
	sp_inherit_number("merge_across_nodes", &t->merge_across_nodes);
	sp_inherit_number("stable_node_chains_prune_millisecs",
			  &t->chains_prune_millisecs);
	sp_inherit_flag("use_zero_pages", &t->use_zero_pages);
	sp_inherit_flag("smart_scan", &t->smart_scan);
	WRITE_ONCE(sp_run, sp_intree_run);
}
