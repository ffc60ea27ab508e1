"""What must last: one interface (`base.Store`), one contract test-suite, one folder for each database."""
