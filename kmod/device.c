// SPDX-License-Identifier: GPL-2.0-only
/* /dev/samepage, for root alone: reading it lists the domains. */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#include "samepage.h"
#include "control.h"

static int sp_device_show(struct seq_file *file, void *unused)
{
	sp_domains_show(file);
	return 0;
}

static int sp_device_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;	/* which misc_open() left there */
	return single_open(file, sp_device_show, NULL);
}

static const struct file_operations sp_device_fops = {
	.owner = THIS_MODULE,
	.open = sp_device_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = single_release,
};

static struct miscdevice sp_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "samepage",
	.mode = 0600,
	.fops = &sp_device_fops,
};

int sp_device_init(void)
{
	return misc_register(&sp_device);
}

void sp_device_exit(void)
{
	misc_deregister(&sp_device);
}
