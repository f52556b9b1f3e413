// SPDX-License-Identifier: GPL-2.0-only
/* A livepatch of something else, to be loaded beside the module under test; with replace=1 it wants to replace all others. */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static bool replace;
module_param(replace, bool, 0444);

static int beside_cmdline_proc_show(struct seq_file *m, void *v)
{
	seq_puts(m, "beside\n");
	return 0;
}

static struct klp_func functions[] = {
	{ .old_name = "cmdline_proc_show", .new_func = beside_cmdline_proc_show },
	{ }
};

static struct klp_object objects[] = {
	{ .funcs = functions },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init beside_init(void)
{
	patch.replace = replace;
	return klp_enable_patch(&patch);
}

static void __exit beside_exit(void)
{
}

module_init(beside_init);
module_exit(beside_exit);
MODULE_DESCRIPTION("a livepatch beside the module under test");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
