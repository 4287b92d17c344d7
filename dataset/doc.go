// Package dataset turns a source into the rows and token batches that training reads.
//
//	files -> Read -> SplitRows -> WriteShards -> Tokenize -> OpenTokens
//
// [Read] streams rows out of label<TAB>text, CSV, JSON Lines, Parquet and Arrow files and folders of texts; [Rejects] takes
// the rows that cannot be used, and [InferLabels] finds the classes where nobody states them. [SplitRows] decides which rows
// are held out and in which order each side is stored; both are functions of what the source says of the rows and of two
// seeds alone, never of the order, the files or the machine that the rows came from. [WriteShards] keeps a side as Arrow
// files, [Tokenize] turns one of them into token ids, and [OpenTokens] maps those into memory.
//
// Memory does not grow with the data: readers hold one row, the split spills to disk, shards are bounded.
// What is wrong with the data is a [*RowError] or a [*SourceError]; nothing a file holds can panic out of this package.
package dataset
