/* Helpers for protobuf-c messages as mutable state. All messages handled here are
 * allocated by malloc and freed by their __free_unpacked(msg, NULL). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>

#include "lib/buf.h"

/* Replaces a string field; NULL sets the empty string. Not for the elements of a repeated field: protobuf-c frees
 * those always, and its shared empty string is not on the heap. Use pb_string_append() or str_dup() there. */
void pb_set_string(char **field, const char *value);
void pb_set_bytes(ProtobufCBinaryData *field, const void *data, size_t len);
/* Repeated message fields: PB_APPEND(m, domains, d) takes ownership of d;
 * PB_INSERT at position i; PB_REMOVE(m, domains, i) frees the element. */
void pb_array_insert(void *array_field, size_t *n, size_t pos, void *message);
void pb_array_remove(void *array_field, size_t *n, size_t pos);  /* does not free: the caller has the pointer */
#define PB_APPEND(m, field, p) pb_array_insert(&(m)->field, &(m)->n_##field, (m)->n_##field, (p))
#define PB_INSERT(m, field, i, p) pb_array_insert(&(m)->field, &(m)->n_##field, (i), (p))
#define PB_REMOVE(m, field, i) do { ProtobufCMessage *pb_gone_ = (ProtobufCMessage *)(m)->field[i]; \
	pb_array_remove(&(m)->field, &(m)->n_##field, (i)); protobuf_c_message_free_unpacked(pb_gone_, NULL); } while (0)
/* Appends a copy. pb_string_append(&spec->cpus, &spec->n_cpus, "0-3"). */
void pb_string_append(char ***array, size_t *n, const char *value);
void pb_u32_append(uint32_t **array, size_t *n, uint32_t value);
/* Deep copy; same descriptor. Owner: caller. Fields that this release does not know are left out. */
void *pb_clone(const void *message);
bool pb_equal(const void *a, const void *b);
/* Packs behind what is in out. Fields that this release does not know are left out: protobuf-c would read some of
 * them (field number 0) and write them in a form that it cannot read again, and a log must never hold such bytes. */
void pb_pack(const void *message, struct buf *out);
/* Bytes that one value of this type takes in its struct or array. */
size_t pb_field_size(ProtobufCType type);
/* A new zeroed message of a descriptor on the heap. PB_NEW(Gantry__Host, gantry__host__init). */
#define PB_NEW(type, init_fn) ({ type *pb_new_ = mem_alloc(sizeof(type)); init_fn(pb_new_); pb_new_; })
