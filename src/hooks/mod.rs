//! Carries out hooks; today the built-in health checks.
