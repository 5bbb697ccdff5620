package pack

// Holds tells whether raw is what frame i decodes to, by storing it as the frame is stored: the sum is of stored bytes. Where
// another version of the encoder made the frame the answer may be no although it is the same.
func (ix *Index) Holds(i uint32, raw []byte) bool {
	f, stored := &ix.Frames[i], raw
	if uint64(len(raw)) != uint64(f.Raw) {
		return false
	}
	if f.Codec == CodecZstd {
		scratch := scratches.Get().(*[MaxFrame + 1024]byte)
		defer scratches.Put(scratch)
		stored = encoder.EncodeAll(raw, scratch[:0])
	}
	return f.Codec <= CodecZstd && uint64(len(stored)) == uint64(f.Len) && sum16(stored) == f.Sum
}
