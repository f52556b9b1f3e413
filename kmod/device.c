// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/samepage: reading it lists the domains, for root alone; anybody may ask why the
 * memory of a process is not merged who may look into it, and choose its domain who may
 * change it; administrators give shares, and say what all domains share (samepage_abi.h).
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "samepage.h"
#include "contents.h"
#include "control.h"
#include "explicit.h"
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

static int sp_device_why(struct samepage_why __user *user)
{
	struct samepage_why why;
	int err;

	if (copy_from_user(&why, user, sizeof(why)))
		return -EFAULT;
	err = sp_why(&why);
	if (!err && copy_to_user(user, &why, sizeof(why)))
		err = -EFAULT;
	return err;
}

static int sp_device_choose(struct samepage_domain __user *user, bool set)
{
	struct samepage_domain asked;

	return copy_from_user(&asked, user, sizeof(asked)) ? -EFAULT : sp_explicit_choose(&asked, set);
}

/* To clear one, only its cgroup is named. */
static int sp_device_share(struct samepage_share __user *user, bool set)
{
	struct samepage_share asked;
	struct sp_share share;

	if (copy_from_user(&asked, user, sizeof(asked)))
		return -EFAULT;
	if (!set)
		return asked.weight || asked.percent || asked.excluded || asked.timing_safe ? -EINVAL :
		       sp_share_clear(asked.cgroup);
	if (!asked.weight || asked.weight > SP_WEIGHT_MAX || asked.percent > SP_PERCENT_MAX ||
	    asked.excluded > 1 || asked.timing_safe > 1)
		return -EINVAL;
	share = (struct sp_share) {
		.weight = asked.weight,
		.percent = asked.percent,
		.excluded = asked.excluded,
		.timing_safe = asked.timing_safe,
	};
	return sp_share_set(asked.cgroup, &share);
}

static int sp_device_contents(struct samepage_contents __user *user)
{
	struct samepage_contents asked;

	return copy_from_user(&asked, user, sizeof(asked)) ? -EFAULT : sp_contents_add(&asked);
}

static long sp_device_ioctl(struct file *file, unsigned int request, unsigned long arg)
{
	void __user *user = (void __user *)arg;

	switch (request) {
	case SAMEPAGE_IOC_WHY:
		return sp_device_why(user);
	case SAMEPAGE_IOC_SET_DOMAIN:
	case SAMEPAGE_IOC_CLEAR_DOMAIN:
		return sp_device_choose(user, request == SAMEPAGE_IOC_SET_DOMAIN);
	case SAMEPAGE_IOC_SET_SHARE:
	case SAMEPAGE_IOC_CLEAR_SHARE:
		return sp_device_share(user, request == SAMEPAGE_IOC_SET_SHARE);
	case SAMEPAGE_IOC_SHARE_CONTENTS:
		return sp_device_contents(user);
	case SAMEPAGE_IOC_CLEAR_CONTENTS:
		return sp_contents_clear();
	}
	return -ENOTTY;
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
