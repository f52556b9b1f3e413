// SPDX-License-Identifier: GPL-2.0-only
/* Show and store functions of plain attributes, and the counts behind some of them. */
#include <linux/kstrtox.h>

#include "attrs.h"

DEFINE_PER_CPU(struct sp_counts, sp_counts);

/* The sum of what each CPU has of the count at @offset of its struct sp_counts. */
unsigned long sp_counted_at(size_t offset)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*(unsigned long *)((void *)per_cpu_ptr(&sp_counts, cpu) + offset));
	return sum;
}

/* The sum of what each stripe has of the count at @offset of its struct sp_stripe. */
unsigned long sp_stripes_sum_at(size_t offset)
{
	struct sp_stripe *stripe;
	unsigned long sum = 0;

	sp_for_each_stripe(stripe)
		sum += READ_ONCE(*(unsigned long *)((void *)stripe + offset));
	return sum;
}

static struct sp_attr *sp_attr_of(struct kobj_attribute *attr)
{
	return container_of(attr, struct sp_attr, attr);
}

ssize_t sp_count_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lu\n", READ_ONCE(*sp_attr_of(attr)->count));
}

ssize_t sp_counted_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lu\n", sp_counted_at(sp_attr_of(attr)->counted));
}

ssize_t sp_compute_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%ld\n", sp_attr_of(attr)->compute());
}

ssize_t sp_number_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", READ_ONCE(*sp_attr_of(attr)->number));
}

ssize_t sp_number_store(struct kobject *kobj, struct kobj_attribute *attr,
			const char *buf, size_t count)
{
	struct sp_attr *self = sp_attr_of(attr);
	unsigned int value;

	if (kstrtouint(buf, 10, &value))
		return -EINVAL;
	WRITE_ONCE(*self->number, value);
	if (self->changed)
		self->changed();
	return count;
}

ssize_t sp_flag_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", READ_ONCE(*sp_attr_of(attr)->flag));
}

ssize_t sp_flag_store(struct kobject *kobj, struct kobj_attribute *attr,
		      const char *buf, size_t count)
{
	struct sp_attr *self = sp_attr_of(attr);
	bool value;

	if (kstrtobool(buf, &value))
		return -EINVAL;
	WRITE_ONCE(*self->flag, value);
	if (self->changed)
		self->changed();
	return count;
}
