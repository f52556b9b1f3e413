// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/samepage: reading it lists the domains, for root alone; anybody may ask why the
 * memory of a process is not merged who may look into it (samepage_abi.h).
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "samepage.h"
#include "control.h"
#include "why.h"

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

static ssize_t sp_device_read(struct file *file, char __user *buf, size_t size, loff_t *pos)
{
	return capable(CAP_SYS_ADMIN) ? seq_read(file, buf, size, pos) : -EPERM;
}

static long sp_device_ioctl(struct file *file, unsigned int request, unsigned long arg)
{
	struct samepage_why __user *user = (void __user *)arg;
	struct samepage_why why;
	int err;

	if (request != SAMEPAGE_IOC_WHY)
		return -ENOTTY;
	if (copy_from_user(&why, user, sizeof(why)))
		return -EFAULT;
	err = sp_why(&why);
	if (!err && copy_to_user(user, &why, sizeof(why)))
		err = -EFAULT;
	return err;
}

static const struct file_operations sp_device_fops = {
	.owner = THIS_MODULE,
	.open = sp_device_open,
	.read = sp_device_read,
	.llseek = seq_lseek,
	.unlocked_ioctl = sp_device_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = single_release,
};

static struct miscdevice sp_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "samepage",
	.mode = 0666,
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
