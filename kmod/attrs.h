/* SPDX-License-Identifier: GPL-2.0-only */
/* Attributes that show or set one value, each without a function of its own. */
#ifndef SAMEPAGE_ATTRS_H
#define SAMEPAGE_ATTRS_H

#include <linux/kobject.h>
#include <linux/sysfs.h>

#include "samepage.h"

struct sp_attr {
	struct kobj_attribute attr;
	union {
		const unsigned long *count;
		long (*compute)(void);
		size_t counted;		/* in struct sp_counts */
		unsigned int *number;
		bool *flag;
		unsigned long *limit;	/* aliases count, for a store */
	};
	void (*changed)(void);		/* called after a store, may be NULL */
};

ssize_t sp_count_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf);
ssize_t sp_counted_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf);
ssize_t sp_compute_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf);
ssize_t sp_number_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf);
ssize_t sp_number_store(struct kobject *kobj, struct kobj_attribute *attr,
			const char *buf, size_t count);
ssize_t sp_flag_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf);
ssize_t sp_flag_store(struct kobject *kobj, struct kobj_attribute *attr,
		      const char *buf, size_t count);

#define SP_COUNT(name, mode, value) static struct sp_attr sp_attr_##name = {	\
	.attr = __ATTR(name, mode, sp_count_show, NULL), .count = value }
/* The sum of what each CPU, or each stripe, has of it. */
#define SP_COUNTED(name, mode) static struct sp_attr sp_attr_##name = {		\
	.attr = __ATTR(name, mode, sp_counted_show, NULL),			\
	.counted = offsetof(struct sp_counts, name) }
#define SP_STRIPES_SUM(name, mode, field)					\
	static long sp_sum_##name(void) { return sp_stripes_sum(field); }	\
	SP_COMPUTED(name, mode, sp_sum_##name)
#define SP_COMPUTED(name, mode, function) static struct sp_attr sp_attr_##name = { \
	.attr = __ATTR(name, mode, sp_compute_show, NULL), .compute = function }
#define SP_NUMBER(name, value, then) static struct sp_attr sp_attr_##name = {	\
	.attr = __ATTR(name, 0644, sp_number_show, sp_number_store),		\
	.number = value, .changed = then }
#define SP_FLAG(name, value, then) static struct sp_attr sp_attr_##name = {	\
	.attr = __ATTR(name, 0644, sp_flag_show, sp_flag_store),		\
	.flag = value, .changed = then }
/* Shown as a number, stored by a function of its own. */
#define SP_STORED(name, value, store) static struct sp_attr sp_attr_##name = {	\
	.attr = __ATTR(name, 0644, sp_number_show, store), .number = value }

#endif
