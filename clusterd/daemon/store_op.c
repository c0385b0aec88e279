#include <stdlib.h>
#include <string.h>

#include "clusterd/daemon/store_db.h"

struct store_op *store_op_from_batch(const struct clog_disk_batch *batch)
{
	struct store_op *op = mem_alloc(sizeof(*op));

	op->serial = batch->serial;
	op->promised_epoch = batch->promised_epoch;
	op->commit_index = batch->commit_index;
	op->truncate_from = batch->truncate_from;
	op->replace_all = batch->replace_all;
	op->bytes = 512;
	if (batch->snapshot) {
		op->has_snapshot = true;
		op->snapshot_index = batch->snapshot_index;
		op->snapshot_epoch = batch->snapshot_epoch;
		buf_append(&op->snapshot, batch->snapshot, batch->snapshot_len);
		op->n_voters = batch->n_snapshot_voters;
		if (op->n_voters)
			op->voters = mem_dup(batch->snapshot_voters, op->n_voters * sizeof(uint32_t));
		op->bytes += batch->snapshot_len;
	}
	op->n_entries = batch->n_entries;
	if (op->n_entries)
		op->entries = mem_alloc(op->n_entries * sizeof(*op->entries));
	for (size_t i = 0; i < op->n_entries; i++) {
		const Gantry__LogEntry *e = batch->entries[i];
		struct store_entry *to = &op->entries[i];

		to->index = e->index;
		to->epoch = e->epoch;
		to->len = e->command.len;
		to->command = to->len ? mem_dup(e->command.data, to->len) : NULL;
		op->bytes += to->len + 64;
	}
	return op;
}

struct store_op *store_op_from_snapshot(uint64_t index, uint64_t epoch, const void *data, size_t len, const uint32_t *voters,
					size_t n_voters)
{
	struct store_op *op = mem_alloc(sizeof(*op));

	op->own_snapshot = op->has_snapshot = true;
	op->snapshot_index = index;
	op->snapshot_epoch = epoch;
	buf_append(&op->snapshot, data, len);
	op->n_voters = n_voters;
	if (n_voters)
		op->voters = mem_dup(voters, n_voters * sizeof(uint32_t));
	op->bytes = 512 + len;
	return op;
}

struct store_op *store_op_remember(void)
{
	struct store_op *op = mem_alloc(sizeof(*op));

	op->remember = true;
	op->bytes = 512;
	return op;
}

struct store_op *store_op_free(struct store_op *op)
{
	if (!op)
		return NULL;
	for (size_t i = 0; i < op->n_entries; i++)
		free(op->entries[i].command);
	free(op->entries);
	free(op->voters);
	buf_free(&op->snapshot);
	free(op);
	return NULL;
}

void store_db_state_free(struct clog_disk_state *state)
{
	for (size_t i = 0; i < state->n_entries; i++)
		gantry__log_entry__free_unpacked(state->entries[i], NULL);
	free(state->entries);
	free(state->voters);
	*state = (struct clog_disk_state){0};
}
