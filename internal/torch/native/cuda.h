// The GPU half of Duratune's native code: a whole training step on packed tokens, captured in a CUDA graph a shape. The same
// code runs on the CPU without graphs and without kernels of its own, which is how it is tested where there is no GPU.
// Functions return a message to be freed by the caller, or NULL.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dt_card dt_card;
typedef struct dt_copy dt_copy;

enum { DT_FP32 = 0, DT_TF32 = 1, DT_BF16 = 2 };
enum { DT_DISTILBERT = 0, DT_BERT = 1, DT_ROBERTA = 2 };
enum { DT_GELU = 0, DT_GELU_TANH = 1, DT_RELU = 2, DT_SILU = 3, DT_TANH = 4 };
// What a run does with its batch: logits; a whole step; one micro-batch, replacing or adding to the gradients; the update.
enum { DT_EVAL = 0, DT_STEP = 1, DT_MICRO_FIRST = 2, DT_MICRO_MORE = 3, DT_UPDATE = 4 };

// dt_card_config is a model on a device (-1: the CPU). offsets are elements into the flat buffer, in the order of
// model.Layout.Offsets. size, tables and decayed are the layout's.
typedef struct {
  int device, precision, type, activation;
  int64_t layers, heads, hidden, inner, labels, vocab, positions, types, word_pad, position_pad;
  int64_t size, tables, decayed;
  const int64_t* offsets;
  double norm_eps, drop_hidden, drop_attention, drop_attended, drop_head;
  double beta1, beta2, adam_eps, decay, max_norm;
  int64_t max_length, max_ints, max_rows;  // longest sequence; longest input; most rows of a batch
  int train;
  const char *plugin, *plugin_hash;
} dt_card_config;

typedef struct {
  char name[256];
  int major, minor;
} dt_card_info;

// A batch of B rows in N tokens, C labels, as int32 (floats by their bits):
//   header[8]: lr, step number from 1, 1-beta1^t, sqrt(1-beta2^t), row of the statistics (an int), 0, 0, 0
//   target[B C]: each row's share of the loss times its smoothed label distribution (zero for rows that fill up)
//   first[B]: the row of each sequence's first token
//   query_starts[2B+1], key_starts[2B+1]: segments in pairs, a sequence and the padding behind it. The last layer computes
//   one query a sequence and none a padding; the others as many as keys.
//   ids[N], positions[N], and types[N] where the batch is typed; where it is not, all are 0
enum { DT_HEADER = 8 };

char* dt_card_open(dt_card** out, const dt_card_config* config, dt_card_info* info);
void dt_card_close(dt_card* card);
// dt_card_stage gives memory for the next batch; it waits until the copy that used it before is done.
char* dt_card_stage(dt_card* card, int32_t** out);
// dt_card_run copies the staged batch of n ints, typed or not, and runs it. max_key bounds the segments; seed keys the dropout.
char* dt_card_run(dt_card* card, int kind, int64_t rows, int64_t tokens, int64_t max_key, int typed, int64_t n, uint64_t seed);
char* dt_card_logits(dt_card* card, float* out, int64_t rows);   // of the last DT_EVAL; waits
char* dt_card_stats(dt_card* card, float* out, int64_t rows);    // loss and norm a row; waits
char* dt_card_write(dt_card* card, const float* w, const float* m, const float* v);  // NULL: left as it is
char* dt_card_gradients(dt_card* card, float* out);              // for tests: fp32, after DT_MICRO_FIRST
char* dt_card_memory(dt_card* card, int64_t* peak);
// dt_card_note is why graphs or own kernels were given up, once, or NULL. To be freed.
char* dt_card_note(dt_card* card);

// dt_card_copy copies weights and moments on the device; dt_copy_fetch brings them to the host, on any thread.
char* dt_card_copy(dt_card* card, dt_copy** out);
char* dt_copy_fetch(dt_copy* copy, float** w, float** m, float** v);
void dt_copy_free(dt_copy* copy);

#ifdef __cplusplus
}
#endif
