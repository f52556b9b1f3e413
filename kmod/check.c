// SPDX-License-Identifier: GPL-2.0-only
/*
 * The checker: walks all that the module owns, under sp_scan_lock, and says what
 * is not as it must be. By reading /sys/kernel/debug/samepage/check, or after each
 * pass with the module parameter check_passes; then a fault is a warning, too.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/module.h>

#include "check.h"
#include "control.h"

/* More of them say nothing new. */
#define SP_FAULTS_SHOWN 20

static bool check_passes;
module_param(check_passes, bool, 0600);
MODULE_PARM_DESC(check_passes, "Check all that the module knows after each pass (slow), until a fault is found");

static struct dentry *sp_check_dir;

void sp_check_fault(struct sp_check *check, const char *format, ...)
{
	struct va_format text = { .fmt = format };
	va_list args;

	if (++check->faults > SP_FAULTS_SHOWN)
		return;
	va_start(args, format);
	text.va = &args;
	if (check->out)
		seq_printf(check->out, "fault: %pV\n", &text);
	else
		pr_err("fault: %pV\n", &text);
	va_end(args);
}

static void sp_check_count(struct sp_check *check, const char *name,
			   unsigned long counter, unsigned long counted)
{
	if (counter != counted)
		sp_check_fault(check, "%s is %lu, counted: %lu", name, counter, counted);
}

/* Needs sp_scan_lock for writing, or no scanner at work. */
static void sp_check_all(struct sp_check *check)
{
	sp_check_count(check, "unsound tenants", sp_registry_faults(), 0);
	sp_check_records(check);
	sp_check_unstable(check);
	sp_check_stable(check);
	sp_check_kept(check);
	sp_check_count(check, "unsound reserve", sp_reserve_faults(), 0);
	sp_check_count(check, "blocks", sp_counted(blocks), check->blocks);
	sp_check_count(check, "pages_tracked", sp_counted(pages_tracked), check->tracked);
	sp_check_count(check, "pages_unshared", sp_stripes_sum(candidates), check->filed);
	sp_check_count(check, "candidates", check->candidates, check->filed);
	sp_check_count(check, "items", sp_counted(items), check->sharers);
	sp_check_count(check, "stables", sp_counted(stables), check->nodes + check->buried);
	sp_check_count(check, "pages_shared", sp_stripes_sum(shared), check->shared);
	sp_check_count(check, "pages_sharing", sp_stripes_sum(sharing), check->sharing);
	sp_check_count(check, "sharers", check->sharers,
		       check->shared + check->sharing + check->left);
	sp_check_count(check, "stable_node_chains", sp_stripes_sum(chains), check->chains);
	sp_check_count(check, "stable_node_dups", sp_stripes_sum(chain_dups), check->dups);
}

static int sp_check_show(struct seq_file *out, void *unused)
{
	struct sp_check check = { .out = out };

	sp_scan_lock_all();
	sp_check_all(&check);
	up_write(&sp_scan_lock);
	seq_printf(out, "spaces %lu\nblocks %lu\ntracked %lu\ncandidates %lu\nsharers %lu\n",
		   check.spaces, check.blocks, check.tracked, check.candidates,
		   check.sharers);
	seq_printf(out, "nodes %lu\nstale %lu\ncompared %lu\nunwalked %lu\n",
		   check.nodes, check.stale, check.compared, check.unwalked);
	seq_printf(out, "mappings %lu\nunreached %lu\nmissed %lu\nfaults %lu\n",
		   check.mappings, check.unreached, check.missed, check.faults);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(sp_check);

/* A pass is over: no scanner is at work. */
void sp_check_pass(void)
{
	struct sp_check check = { };

	if (!READ_ONCE(check_passes))
		return;
	sp_check_all(&check);
	/* What is wrong stays so: once is enough. */
	if (WARN(check.faults, "samepage: %lu faults found after a pass\n", check.faults))
		WRITE_ONCE(check_passes, false);
}

static int sp_tenants_show(struct seq_file *out, void *unused)
{
	sp_registry_show_tenants(out);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(sp_tenants);

/* Without debugfs there is no file, and nothing else is missing. */
void sp_check_init(void)
{
	sp_check_dir = debugfs_create_dir("samepage", NULL);
	debugfs_create_file("check", 0400, sp_check_dir, NULL, &sp_check_fops);
	debugfs_create_file("tenants", 0400, sp_check_dir, NULL, &sp_tenants_fops);
}

void sp_check_exit(void)
{
	debugfs_remove(sp_check_dir);
}
