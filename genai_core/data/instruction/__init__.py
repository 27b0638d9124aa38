"""What chat and reward models learn from: records as questions, answers and judgements, and the rows made of them."""
