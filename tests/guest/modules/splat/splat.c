// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes the kernel complain on purpose, so that tests can see whether the log
 * gate notices:  echo NAME > /sys/kernel/debug/splat/provoke
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/kfence.h>
#include <linux/kobject.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/uaccess.h>

static unsigned int seconds = 10;
module_param(seconds, uint, 0644);
MODULE_PARM_DESC(seconds, "how long stalls and hangs last");

static void provoke_warn(void)
{
	WARN(1, "a warning on purpose\n");
}

static void provoke_bug(void)
{
	BUG();
}

static void provoke_oops(void)
{
	*(volatile int *)8 = 1;
}

static void provoke_gpf(void)
{
	*(volatile int *)0xdead000000000000ul = 1;
}

static void provoke_refcount(void)
{
	refcount_t count = REFCOUNT_INIT(0);

	refcount_inc(&count);
}

static void provoke_list(void)
{
	LIST_HEAD(head);
	struct list_head entry = { &head, &head };

	head.next = &entry;
	list_add(&entry, &head);
}

static void provoke_bad_page(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	if (!page)
		return;
	page->mapping = (void *)8;
	__free_page(page);
}

static void provoke_duplicate(void)
{
	struct kobject *kobjects[2];

	for (int i = 0; i < 2; i++)
		kobjects[i] = kobject_create_and_add("splat-twice", kernel_kobj);
	for (int i = 0; i < 2; i++)
		kobject_put(kobjects[i]);
}

static void provoke_atomic(void)
{
	preempt_disable();
	msleep(1);
	preempt_enable();
}

/* What only a kernel with DEBUG_ATOMIC_SLEEP sees: nothing sleeps. */
static void provoke_might_sleep(void)
{
	preempt_disable();
	might_sleep();
	preempt_enable();
}

static void provoke_hung(void)
{
	unsigned long end = jiffies + seconds * HZ;

	/* Asleep the whole time: the detector counts context switches. */
	while (time_before(jiffies, end)) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule_timeout(end - jiffies);
	}
}

static void spin(void)
{
	unsigned long long end = ktime_get_ns() + seconds * NSEC_PER_SEC;

	while (ktime_get_ns() < end)
		cpu_relax();
}

static void provoke_stall(void)
{
	preempt_disable();
	spin();
	preempt_enable();
}

static void spin_for_ever(void *unused)
{
	for (;;)
		cpu_relax();
}

/* Every CPU with interrupts off: nothing in this guest answers any more. */
static void provoke_dead(void)
{
	local_irq_disable();
	on_each_cpu(spin_for_ever, NULL, 0);
	spin_for_ever(NULL);
}

static void provoke_panic(void)
{
	panic("a panic on purpose");
}

static void provoke_flood(void)
{
	for (int i = 0; i < 20000; i++)
		pr_info("line %d of a flood\n", i);
}

/* With slab_debug=FZPU: found when the object is given out again. */
static void provoke_poison(void)
{
	u64 *object = kmalloc(64, GFP_KERNEL);

	if (!object)
		return;
	OPTIMIZER_HIDE_VAR(object);
	kfree(object);
	WRITE_ONCE(object[3], 1);
	kfree(kmalloc(64, GFP_KERNEL));
}

/* KFENCE watches over an allocation now and then. */
static void provoke_kfence(void)
{
	for (int i = 0; i < 2000; i++) {
		u64 *object = kmalloc(64, GFP_KERNEL);
		bool watched = is_kfence_address(object);

		OPTIMIZER_HIDE_VAR(object);
		kfree(object);
		if (watched) {
			WRITE_ONCE(object[3], 1);
			return;
		}
		usleep_range(1000, 2000);
	}
}

/* What only a debug kernel sees. */

static int *__rcu shared;

static void provoke_rcu(void)
{
	rcu_dereference(shared);
}

static unsigned int bits = 40;

static void provoke_shift(void)
{
	bits = 1 << READ_ONCE(bits);
}

static void provoke_use_after_free(void)
{
	u64 *freed = kmalloc(sizeof(*freed) * 8, GFP_KERNEL);

	if (!freed)
		return;
	OPTIMIZER_HIDE_VAR(freed);
	kfree(freed);
	WRITE_ONCE(freed[3], 1);
}

static DEFINE_MUTEX(inner);
static DEFINE_MUTEX(outer);

static void provoke_inversion(void)
{
	mutex_lock(&outer);
	mutex_lock(&inner);
	mutex_unlock(&inner);
	mutex_unlock(&outer);
	mutex_lock(&inner);
	mutex_lock(&outer);
	mutex_unlock(&outer);
	mutex_unlock(&inner);
}

static void *lost;

static void provoke_leak(void)
{
	lost = kmalloc(100, GFP_KERNEL);
	lost = NULL;
}

/* A reference too many: the page is never freed. */
static void provoke_page_reference(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	if (!page)
		return;
	get_page(page);
	__free_page(page);
}

/* The same of a page of the process that asks: it outlives the process, and nobody maps it. */
static void provoke_somebodys_page(void)
{
	struct page *page;

	get_user_pages_fast(current->mm->start_stack, 1, 0, &page);
}

/* One too few: whoever has it next shares it with who thinks that he has it. */
static void provoke_page_freed_twice(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	if (!page)
		return;
	__free_page(page);
	put_page(page);
}

static u64 raced;

static int race(void *unused)
{
	unsigned long end = jiffies + HZ;

	while (time_before(jiffies, end)) {
		raced++;
		barrier();	/* in memory each time */
	}
	return 0;
}

/* Two threads count in one variable, without a lock. */
static void provoke_race(void)
{
	struct task_struct *racers[2];

	for (int i = 0; i < 2; i++) {
		racers[i] = kthread_create(race, NULL, "race/%d", i);
		if (!IS_ERR(racers[i])) {
			get_task_struct(racers[i]);
			wake_up_process(racers[i]);
		}
	}
	msleep(2 * MSEC_PER_SEC);
	for (int i = 0; i < 2; i++) {
		if (!IS_ERR(racers[i]))
			put_task_struct(racers[i]);
	}
}

static const struct {
	const char *name;
	void (*provoke)(void);
} table[] = {
	{ "warn", provoke_warn },
	{ "bug", provoke_bug },
	{ "oops", provoke_oops },
	{ "gpf", provoke_gpf },
	{ "refcount", provoke_refcount },
	{ "list", provoke_list },
	{ "bad_page", provoke_bad_page },
	{ "duplicate", provoke_duplicate },
	{ "atomic", provoke_atomic },
	{ "might_sleep", provoke_might_sleep },
	{ "hung", provoke_hung },
	{ "stall", provoke_stall },
	{ "dead", provoke_dead },
	{ "panic", provoke_panic },
	{ "flood", provoke_flood },
	{ "poison", provoke_poison },
	{ "kfence", provoke_kfence },
	{ "rcu", provoke_rcu },
	{ "shift", provoke_shift },
	{ "use_after_free", provoke_use_after_free },
	{ "inversion", provoke_inversion },
	{ "leak", provoke_leak },
	{ "page_reference", provoke_page_reference },
	{ "somebodys_page", provoke_somebodys_page },
	{ "page_freed_twice", provoke_page_freed_twice },
	{ "race", provoke_race },
};

static ssize_t provoke_write(struct file *file, const char __user *data, size_t size, loff_t *at)
{
	char name[24] = "";

	if (size >= sizeof(name) || copy_from_user(name, data, size))
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (sysfs_streq(name, table[i].name)) {
			table[i].provoke();
			return size;
		}
	}
	return -EINVAL;
}

static const struct file_operations provoke_ops = {
	.owner = THIS_MODULE,
	.write = provoke_write,
};

static struct dentry *folder;

static int __init splat_init(void)
{
	/* Not a module parameter: a writer that dies would take the lock of all parameters with it. */
	folder = debugfs_create_dir("splat", NULL);
	debugfs_create_file("provoke", 0200, folder, NULL, &provoke_ops);
	return 0;
}
module_init(splat_init);

static void __exit splat_exit(void)
{
	debugfs_remove(folder);
}
module_exit(splat_exit);

MODULE_DESCRIPTION("Makes the kernel complain, for tests of the log gate");
MODULE_LICENSE("GPL");
