//! The only unsafe code: thin, documented calls into the kernel.
