//! Every rule is there for a reason.
