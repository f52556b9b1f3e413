// SPDX-License-Identifier: GPL-2.0-only
/*
 * A TCG plugin that counts the instructions of one kernel thread of the guest,
 * by translation block and by the calls that led to it.
 *
 * It knows no symbols but the few addresses in its arguments. What runs is
 * known from the scheduler: __switch_to_asm is entered with the next task in
 * rsi, and the thread's task is the one with the wanted name. Where a task
 * keeps its name is found out when __set_task_comm names the first kernel
 * thread. While any other task runs, a block costs one comparison.
 *
 * The call stack is a shadow of the return addresses. A context is a node of
 * the tree of those: (context of the caller, return address). Instructions are
 * counted by (context, block). Counts and contexts lie in a file that the
 * harness passes (struct shared), and reads when QEMU has ended.
 *
 * An interrupt begins at one of the listed entries and ends with its iret.
 * What runs between is counted apart: the kernel does not charge it to the
 * thread either (CONFIG_IRQ_TIME_ACCOUNTING).
 *
 * One CPU only: nothing here is locked.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <glib.h>
#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define MAGIC		0x31464f5250504153ull	/* "SAPPROF1" */
#define MAX_CONTEXTS	(1u << 16)
#define MAX_COUNTS	(1u << 19)
#define MAX_FRAMES	1024
#define MAX_IRQ_DEPTH	8
#define MAX_ENTRIES	1024
#define INTERRUPTS	1	/* the context that interrupts begin in; 0 is the thread's own */
#define COMM_LENGTH	16
#define TASK_BYTES	6144
#define FIRST_NAMED	"kthreadd"
#define BEGIN		"profile-begin"	/* a program that takes this name has the counting begin anew */
#define END		"profile-end"	/* and one with this name has it end */

struct context {
	uint64_t return_address;
	uint32_t parent;
	uint32_t unused;
};

struct count {
	uint64_t block;		/* 0: a free slot */
	uint64_t instructions;
	uint32_t context;
	uint32_t unused;
};

/* Mirrored by harness/profile/shared.py. */
struct shared {
	uint64_t magic;
	uint64_t task;
	uint64_t switches;
	uint64_t lost;		/* instructions that no table had room for */
	uint32_t contexts;
	uint32_t counts;
	struct context context[MAX_CONTEXTS];
	struct count count[MAX_COUNTS];
};

enum ending { ENDS_OTHERWISE, ENDS_IN_CALL, ENDS_IN_RETURN, ENDS_IN_IRET };

struct block {
	uint64_t address;
	uint64_t after;		/* the address behind its last instruction */
	uint32_t instructions;
	enum ending ending;
	bool interrupt_entry;
	uint32_t context;	/* of the slot that was used last */
	struct count *slot;
};

struct frame {
	uint64_t return_address;
	uint32_t caller;	/* the context to go back to */
};

static struct shared *shared;
static struct qemu_plugin_scoreboard *scoreboard;
static qemu_plugin_u64 thread_runs;
static struct qemu_plugin_register *rsi, *rdi;
static GByteArray *buffer;
static GHashTable *blocks;		/* (address, length): blocks are translated again and again */
static GHashTable *context_of;

static uint64_t switch_address, name_address;
static uint64_t first_named, comm_offset;
static uint64_t entries[MAX_ENTRIES];
static size_t n_entries;
static char wanted[COMM_LENGTH];

static struct frame frames[MAX_FRAMES];
static size_t depth;
static uint32_t context;
static enum ending last_ending;

/* What an interrupt interrupted. */
static struct {
	size_t depth;
	uint32_t context;
	enum ending ending;
} interrupted[MAX_IRQ_DEPTH];
static size_t irq_depth;
static bool ended;

static uint64_t mix(uint64_t a, uint64_t b)
{
	uint64_t h = (a ^ (b << 32 | b >> 32)) * 0x9e3779b97f4a7c15ull;

	return h ^ h >> 29;
}

static guint context_hash(gconstpointer key)
{
	const struct context *c = key;

	return mix(c->return_address, c->parent);
}

static gboolean context_equal(gconstpointer a, gconstpointer b)
{
	const struct context *x = a, *y = b;

	return x->return_address == y->return_address && x->parent == y->parent;
}

/* When there is no room for more, the callee's instructions count as the caller's. */
static uint32_t child_context(uint32_t parent, uint64_t return_address)
{
	struct context key = { .return_address = return_address, .parent = parent };
	struct context *found = g_hash_table_lookup(context_of, &key);

	if (found)
		return found - shared->context;
	if (shared->contexts == MAX_CONTEXTS)
		return parent;
	found = &shared->context[shared->contexts];
	*found = key;
	g_hash_table_add(context_of, found);
	return shared->contexts++;
}

static struct count *find_slot(struct block *block)
{
	uint64_t at = mix(block->address, context);

	for (uint32_t probe = 0; probe < MAX_COUNTS; probe++, at++) {
		struct count *slot = &shared->count[at % MAX_COUNTS];

		if (slot->block == block->address && slot->context == context)
			return slot;
		if (slot->block)
			continue;
		if (shared->counts >= MAX_COUNTS / 4 * 3)
			return NULL;
		shared->counts++;
		slot->block = block->address;
		slot->context = context;
		return slot;
	}
	return NULL;
}

static void count(struct block *block)
{
	if (!block->slot || block->context != context) {
		block->slot = find_slot(block);
		block->context = context;
	}
	if (block->slot)
		block->slot->instructions += block->instructions;
	else
		shared->lost += block->instructions;
}

static void push(uint64_t return_address)
{
	if (depth == MAX_FRAMES) {
		memmove(frames, frames + MAX_FRAMES / 2, sizeof(frames) / 2);
		depth = MAX_FRAMES / 2;
	}
	frames[depth++] = (struct frame){ .return_address = return_address, .caller = context };
	context = child_context(context, return_address);
}

/* A return that goes nowhere we came from is a jump by way of the stack (a return thunk): it took one address. */
static void pop_to(uint64_t address)
{
	size_t floor = irq_depth ? interrupted[irq_depth - 1].depth : 0;
	size_t at = depth;

	while (at > floor && frames[at - 1].return_address != address)
		at--;
	if (at == floor)
		at = depth;
	if (at == floor)
		return;
	depth = at - 1;
	context = frames[depth].caller;
}

static void enter_interrupt(void)
{
	if (irq_depth == MAX_IRQ_DEPTH)
		return;
	interrupted[irq_depth].depth = depth;
	interrupted[irq_depth].context = context;
	interrupted[irq_depth].ending = last_ending;
	irq_depth++;
	context = INTERRUPTS;
	last_ending = ENDS_OTHERWISE;
}

static void leave_interrupt(void)
{
	if (!irq_depth)
		return;
	irq_depth--;
	depth = interrupted[irq_depth].depth;
	context = interrupted[irq_depth].context;
	last_ending = interrupted[irq_depth].ending;
}

static uint64_t call_returns_to;

/* Called for every block that the thread executes. */
static void thread_executes(unsigned int cpu, void *data)
{
	struct block *block = data;

	if (block->interrupt_entry)
		enter_interrupt();
	if (last_ending == ENDS_IN_CALL)
		push(call_returns_to);
	else if (last_ending == ENDS_IN_RETURN)
		pop_to(block->address);
	count(block);
	last_ending = block->ending;
	if (block->ending == ENDS_IN_CALL)
		call_returns_to = block->after;
	else if (block->ending == ENDS_IN_IRET)
		leave_interrupt();
}

static uint64_t read_register(struct qemu_plugin_register *handle)
{
	uint64_t value = 0;

	g_byte_array_set_size(buffer, 0);
	if (qemu_plugin_read_register(handle, buffer) == sizeof(value))
		memcpy(&value, buffer->data, sizeof(value));
	return value;
}

/* Into `buffer`. */
static bool read_memory(uint64_t address, size_t length)
{
	return qemu_plugin_read_memory_vaddr(address, buffer, length);
}

static bool is_text(const char *text)
{
	return !strncmp((const char *)buffer->data, text, COMM_LENGTH);
}

/* The slots stay, as blocks point to them. */
static void begin_anew(void)
{
	for (size_t i = 0; i < MAX_COUNTS; i++)
		shared->count[i].instructions = 0;
	shared->lost = 0;
	shared->switches = 0;
}

/* __set_task_comm(task, name, ...) begins. */
static void task_is_named(unsigned int cpu, void *data)
{
	uint64_t task = read_register(rdi), name = read_register(rsi);

	if (!read_memory(name, COMM_LENGTH))
		return;
	if (is_text(FIRST_NAMED))
		first_named = task;
	else if (is_text(BEGIN))
		begin_anew();
	else if (is_text(END))
		ended = true;
}

/* The first task with a name that is known tells where in struct task_struct the name lies. */
static void find_comm(void)
{
	static const char name[] = FIRST_NAMED;

	if (!read_memory(first_named, TASK_BYTES))
		return;
	for (size_t at = 0; at + sizeof(name) <= TASK_BYTES && !comm_offset; at += 8)
		if (!memcmp(buffer->data + at, name, sizeof(name)))
			comm_offset = at;
}

/* __switch_to_asm(previous, next) begins. */
static void tasks_switch(unsigned int cpu, void *data)
{
	uint64_t next = read_register(rsi);
	bool runs;

	if (first_named && !comm_offset)
		find_comm();
	runs = !ended && comm_offset && read_memory(next + comm_offset, COMM_LENGTH) && is_text(wanted);
	if (runs)
		shared->task = next;
	shared->switches += runs;
	qemu_plugin_u64_set(thread_runs, cpu, runs);
}

static enum ending ending_of(const struct qemu_plugin_insn *insn)
{
	uint8_t code[16];
	size_t length = qemu_plugin_insn_data(insn, code, sizeof(code)), at = 0;

	/* Prefixes that compilers and alternatives put before calls and returns. */
	while (at < length && (code[at] == 0x2e || code[at] == 0x3e || code[at] == 0xf2 || code[at] == 0xf3))
		at++;
	if (at + 1 < length && (code[at] & 0xf0) == 0x40) {
		if (code[at] == 0x48 && code[at + 1] == 0xcf)
			return ENDS_IN_IRET;
		at++;
	}
	if (at >= length)
		return ENDS_OTHERWISE;
	if (code[at] == 0xe8 || (code[at] == 0xff && at + 1 < length && (code[at + 1] >> 3 & 7) == 2))
		return ENDS_IN_CALL;
	if (code[at] == 0xc3 || code[at] == 0xc2)
		return ENDS_IN_RETURN;
	return ENDS_OTHERWISE;
}

static bool is_entry(uint64_t address)
{
	for (size_t i = 0; i < n_entries; i++)
		if (entries[i] == address)
			return true;
	return false;
}

static guint block_hash(gconstpointer key)
{
	const struct block *b = key;

	return mix(b->address, b->after << 3 | b->ending);
}

static gboolean block_equal(gconstpointer a, gconstpointer b)
{
	const struct block *x = a, *y = b;

	return x->address == y->address && x->after == y->after && x->instructions == y->instructions &&
	       x->ending == y->ending;
}

static struct block *find_block(struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);
	struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, n - 1);
	struct block key = {
		.address = qemu_plugin_tb_vaddr(tb),
		.after = qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last),
		.instructions = n,
		.ending = ending_of(last),
	};
	struct block *found = g_hash_table_lookup(blocks, &key);

	if (!found) {
		found = g_new(struct block, 1);
		*found = key;
		found->interrupt_entry = is_entry(key.address);
		g_hash_table_add(blocks, found);
	}
	return found;
}

static void block_is_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);

	/* The thread is the kernel's: it never runs a program's code. */
	if (!(address >> 63))
		return;
	/* A block may lead into the function; what matters is its first instruction. */
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t at = qemu_plugin_insn_vaddr(insn);

		if (at == switch_address)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, tasks_switch, QEMU_PLUGIN_CB_R_REGS, NULL);
		if (at == name_address)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, task_is_named, QEMU_PLUGIN_CB_R_REGS, NULL);
	}
	qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, thread_executes, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_COND_NE,
						  thread_runs, 0, find_block(tb));
}

static void cpu_begins(qemu_plugin_id_t id, unsigned int cpu)
{
	g_autoptr(GArray) registers = qemu_plugin_get_registers();

	for (size_t i = 0; i < registers->len; i++) {
		qemu_plugin_reg_descriptor *r = &g_array_index(registers, qemu_plugin_reg_descriptor, i);

		if (!strcmp(r->name, "rsi"))
			rsi = r->handle;
		else if (!strcmp(r->name, "rdi"))
			rdi = r->handle;
	}
	if (!rsi || !rdi) {
		fprintf(stderr, "profile: this QEMU shows no rsi and rdi\n");
		exit(1);
	}
}

static bool map_shared(int fd)
{
	if (ftruncate(fd, sizeof(*shared)))
		return false;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		return false;
	shared->contexts = 2;
	shared->magic = MAGIC;
	return true;
}

static bool take_argument(const char *argument)
{
	const char *value = strchr(argument, '=');
	size_t length = value ? value - argument : 0;

	if (!value)
		return false;
	value++;
	if (!strncmp(argument, "fd", length))
		return map_shared(atoi(value));
	if (!strncmp(argument, "thread", length))
		return g_strlcpy(wanted, value, sizeof(wanted)) < sizeof(wanted);
	if (!strncmp(argument, "switch", length))
		return (switch_address = strtoull(value, NULL, 16));
	if (!strncmp(argument, "name", length))
		return (name_address = strtoull(value, NULL, 16));
	if (!strncmp(argument, "entry", length) && n_entries < MAX_ENTRIES)
		return (entries[n_entries++] = strtoull(value, NULL, 16));
	return false;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		if (!take_argument(argv[i])) {
			fprintf(stderr, "profile: cannot use %s\n", argv[i]);
			return -1;
		}
	}
	if (!shared || !*wanted || !switch_address || !name_address || info->system.smp_vcpus != 1) {
		fprintf(stderr, "profile: fd, thread, switch, name and one CPU are needed\n");
		return -1;
	}
	buffer = g_byte_array_new();
	blocks = g_hash_table_new(block_hash, block_equal);
	context_of = g_hash_table_new(context_hash, context_equal);
	scoreboard = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	thread_runs = qemu_plugin_scoreboard_u64(scoreboard);
	qemu_plugin_register_vcpu_init_cb(id, cpu_begins);
	qemu_plugin_register_vcpu_tb_trans_cb(id, block_is_translated);
	return 0;
}
